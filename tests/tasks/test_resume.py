# SPDX-License-Identifier: Apache-2.0
"""Training that stops and goes on: Ctrl-C, the time limit, what may change on the way and what may not."""

import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from rnnfast.runs import InputError, check_same
from rnnfast.tasks import training
from rnnfast.tasks.training import Trainer
from tests.helpers import interrupted
from tests.tasks.conftest import TINY, results
from tests.tasks.test_run import COMMAND, ENVIRONMENT

pytestmark = pytest.mark.usefixtures("no_pictures")


def histories(folder: Path) -> tuple:
    found = results(folder)
    return found["history"]["loss"], found["history"]["validation"], found["results"]["metric"]


@pytest.mark.parametrize("case", ["lm", "tag conllu"])
def test_resuming_gives_the_numbers_of_an_uninterrupted_run(
    case: str, rnnfast: Callable, arguments: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C between two updates, in the middle of an epoch."""
    words = (*arguments[case], "--dropout", "0.3", "--out", tmp_path)
    assert rnnfast("train", *words, "--name", "whole").code == 0
    update = Trainer.update

    def interrupted(self: Trainer, batch: object) -> tuple[float, int]:
        if self.progress.step == 2:
            signal.raise_signal(signal.SIGINT)
        return update(self, batch)

    monkeypatch.setattr(Trainer, "update", interrupted)
    cut = rnnfast("train", *words, "--name", f"{words[0]}-cut")
    monkeypatch.setattr(Trainer, "update", update)
    assert cut.code == 130
    assert "interrupted at update 3; saved" in cut.err
    assert not (tmp_path / f"{words[0]}-cut/results.json").exists()
    resumed = rnnfast("train", words[0], "--resume", "--out", tmp_path)  # the latest run of the task
    assert resumed.code == 0, resumed.err
    assert histories(tmp_path / "whole") == histories(tmp_path / f"{words[0]}-cut")
    again = rnnfast("train", *words, "--name", "whole")
    assert again.code == 2
    assert "this run exists" in again.err


def test_a_run_goes_on_with_more_epochs_only_on_the_same_data(
    rnnfast: Callable, arguments: dict, data: Path, tmp_path: Path
) -> None:
    text = tmp_path / "text.txt"
    text.write_text((data / "text.txt").read_text())
    words = ("lm", "--text", text, "--chunk", "16", *TINY, "--out", tmp_path, "--name", "a")
    assert rnnfast("train", *words).code == 0
    longer = rnnfast("train", "lm", "--resume", "--name", "a", "--out", tmp_path, "--epochs", "3")
    assert longer.code == 0, longer.err
    assert results(tmp_path / "a")["results"]["epochs"] == 3
    wrong = rnnfast("train", "tag", "--resume", "--name", "a", "--out", tmp_path)
    assert "expected a run of tag, got one of lm" in wrong.err
    text.write_text(text.read_text().replace("fox", "cow"))
    other = rnnfast("train", "lm", "--resume", "--name", "a", "--out", tmp_path)
    assert other.code == 2
    assert "the data is not what this run was trained on" in other.err
    (tmp_path / "a/checkpoint.pt").write_bytes(b"damaged")
    assert "cannot be read" in rnnfast("train", "lm", "--resume", "--name", "a", "--out", tmp_path).err


def test_an_interrupted_process_exits_130(arguments: dict, tmp_path: Path) -> None:
    words = [str(w) for w in (*arguments["lm"], "--out", tmp_path, "--name", "a", "--epochs", "100000")]
    code, stderr = interrupted([*COMMAND, "train", *words], tmp_path / "a/checkpoint.pt", env=ENVIRONMENT, cwd=tmp_path)
    assert code == 130, stderr
    assert "--resume --name a" in stderr
    assert (tmp_path / "a/model.pt").exists()


class Clock:
    """In place of the time module of the training loop: a deadline is up after so many updates of this call."""

    perf_counter = staticmethod(time.perf_counter)

    def __init__(self, updates: int) -> None:
        self.left = updates

    def monotonic(self) -> float:
        """Asked once after each update, and once after each epoch that no deadline has cut."""
        self.left -= 1
        return float("inf") if self.left <= 0 else float("-inf")


@pytest.mark.parametrize(("case", "patience", "least"), [("lm", 20, 29), ("tag conllu", 1, 1), ("classify ts", 2, 2)])
def test_time_limits_leave_no_trace_in_a_resumed_run(
    case: str,
    patience: int,
    least: int,
    rnnfast: Callable,
    arguments: dict,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Stopped by the clock again and again, within epochs, at their ends and right after them: the numbers, the best
    model and the reason of the end are those of one call; the evaluations at the limits count for nothing."""
    words = (*arguments[case], "--dropout", "0.3", "--epochs", "4", "--patience", patience, "--out", tmp_path)
    assert rnnfast("train", *words, "--name", "whole").code == 0
    whole = results(tmp_path / "whole")
    monkeypatch.setattr(training, "time", Clock(least))
    cut = rnnfast("train", *words, "--name", "cut", "--minutes", "1")
    calls, between = 1, 0
    while (found := results(tmp_path / "cut")["results"])["stopped_by"] == "time limit":
        assert cut.code == 0, cut.err
        epochs = [step for step, _ in whole["history"]["validation"]]
        between += found["updates"] not in epochs
        assert calls < 200
        calls += 1
        monkeypatch.setattr(training, "time", Clock(least + calls % 4))
        cut = rnnfast("train", words[0], "--resume", "--name", "cut", "--out", tmp_path, "--minutes", "1")
    assert calls > 2
    assert between > 0
    end = results(tmp_path / "cut")
    assert end["history"] == whole["history"]
    for key in set(whole["results"]) - {"training_seconds", "items_per_second"}:
        assert end["results"][key] == whole["results"][key], key
    files = [(tmp_path / name / "model.pt").read_bytes() for name in ("whole", "cut")]
    assert files[0] == files[1]


def test_a_model_of_the_time_limit_is_judged_but_not_kept(
    rnnfast: Callable, trained: Callable, arguments: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Better than those of the epochs, it is the one that the report judges; a resumed run that finds none as good as
    its own best has that one again."""
    words = (*arguments["lm"], "--out", tmp_path, "--name", "a")
    (epoch, _), (last, _) = results(trained("lm"))["history"]["validation"]  # updates of one epoch, and of both
    scores = iter([3.0, 1.0, 4.0, 5.0])
    monkeypatch.setattr("rnnfast.tasks.lm.LanguageTask.validate", lambda _: next(scores))
    monkeypatch.setattr(training, "time", Clock(epoch + 3))  # the end of the first epoch asks too
    assert rnnfast("train", *words, "--minutes", "1").code == 0
    first = results(tmp_path / "a")
    assert first["results"]["best_update"] == epoch + 2
    assert first["history"]["validation"] == [[epoch, 3.0], [epoch + 2, 1.0]]
    late = (tmp_path / "a/model.pt").read_bytes()
    monkeypatch.setattr(training, "time", time)
    assert rnnfast("train", "lm", "--resume", "--name", "a", "--out", tmp_path).code == 0
    second = results(tmp_path / "a")
    assert second["history"]["validation"] == [[epoch, 3.0], [last, 4.0]]
    assert second["results"]["best_update"] == epoch
    assert (tmp_path / "a/model.pt").read_bytes() != late


def test_a_limit_at_an_epochs_end_evaluates_once(
    rnnfast: Callable, trained: Callable, arguments: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = (*arguments["lm"], "--out", tmp_path, "--name", "a")
    (epoch, _), (last, _) = results(trained("lm"))["history"]["validation"]
    scores = iter([3.0, 2.0])  # no third
    monkeypatch.setattr("rnnfast.tasks.lm.LanguageTask.validate", lambda _: next(scores))
    monkeypatch.setattr(training, "time", Clock(epoch))
    assert rnnfast("train", *words, "--minutes", "1").code == 0
    assert results(tmp_path / "a")["history"]["validation"] == [[epoch, 3.0]]
    assert results(tmp_path / "a")["results"]["stopped_by"] == "time limit"
    monkeypatch.setattr(training, "time", time)
    assert rnnfast("train", "lm", "--resume", "--name", "a", "--out", tmp_path).code == 0
    assert results(tmp_path / "a")["history"]["validation"] == [[epoch, 3.0], [last, 2.0]]


@pytest.mark.parametrize(
    ("case", "words", "message"),
    [
        ("lm", ("--learning-rate", "1e-2"), "got learning_rate 0.01 where it has 0.004; only --epochs, --patience, "),
        ("lm", ("--hidden", "9", "--cell", "gru"), "got cell gru where it has lstm, hidden 9 where it has 8;"),
        ("lm", ("--init", "irnn"), "got init irnn where it has the default;"),
        ("lm", ("--train", "a.txt"), "got train a.txt where it has the default;"),
        ("tag conllu", ("--online",), "got bidirectional False where it has True;"),
        ("lm", ("--epochs", "1"), "--epochs 1: expected at least the 2 that it has begun"),
    ],
)
def test_options_that_contradict_the_run(
    case: str, words: tuple, message: str, rnnfast: Callable, trained: Callable
) -> None:
    folder = trained(case)
    before = (folder / "checkpoint.pt").read_bytes()
    task = case.split()[0]
    found = rnnfast("train", task, "--resume", "--name", folder.name, "--out", folder.parent, *words)
    assert found.code == 2
    assert f"--resume {folder}: " in found.err
    assert message in found.err
    assert len(found.err.strip().splitlines()) == 1
    assert (folder / "checkpoint.pt").read_bytes() == before


def test_what_may_change(rnnfast: Callable, arguments: dict, data: Path, tmp_path: Path) -> None:
    """The same options again; more epochs and more patience; the same text in another place."""
    words = (*arguments["lm"], "--out", tmp_path, "--name", "a")
    assert rnnfast("train", *words).code == 0
    checkpoint = torch.load(tmp_path / "a/checkpoint.pt", weights_only=True)
    del checkpoint["best"], checkpoint["data"]["content"]  # as before there were such
    torch.save(checkpoint, tmp_path / "a/checkpoint.pt")
    same = rnnfast("train", *words, "--resume", "--threads", "1", "--minutes", "5")
    assert same.code == 0, same.err
    text = tmp_path / "moved.txt"
    text.write_text((data / "text.txt").read_text())
    more = ("--epochs", "3", "--patience", "7", "--text", text)
    moved = rnnfast("train", "lm", "--resume", "--name", "a", "--out", tmp_path, *more)
    assert moved.code == 0, moved.err
    settings = results(tmp_path / "a")["settings"]
    assert (settings["epochs"], settings["patience"], settings["options"]["text"]) == (3, 7, [str(text)])
    text.write_text(text.read_text()[:-5] + "god.\n")  # of the test part only
    other = rnnfast("train", "lm", "--resume", "--name", "a", "--out", tmp_path, "--text", text)
    assert other.code == 2
    assert "the data is not what this run was trained on" in other.err


def test_differences_are_listed() -> None:
    saved = {"a": 1, "b": None, "c": [1, 2]}
    check_same(Path("r"), {}, saved, "--x")
    check_same(Path("r"), {"a": 1, "c": [1, 2]}, saved, "--x")
    expected = r"^--resume r: expected .* got a 2 where it has 1, b 3 where it has the default, d 4 .*; only --x may"
    with pytest.raises(InputError, match=expected):
        check_same(Path("r"), {"a": 2, "b": 3, "c": [1, 2], "d": 4}, saved, "--x")
