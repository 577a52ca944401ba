# SPDX-License-Identifier: Apache-2.0
"""`rnnfast run` in a pipe: one answer a line as it comes, online models, errors; resuming and Ctrl-C of training."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from rnnfast.models import LanguageModel, load
from tests.tasks.conftest import TINY, results

pytestmark = pytest.mark.usefixtures("no_pictures")

ROOT = Path(__file__).resolve().parent.parent.parent
COMMAND = [sys.executable, "-m", "rnnfast"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
               "OMP_NUM_THREADS": "1"}  # fmt: skip


def test_generation_repeats_and_follows_its_options(rnnfast: Callable, trained: Callable) -> None:
    folder = trained("lm")
    one = rnnfast("run", folder, "--length", 30, "--seed", 1, stdin="the\n").out
    assert one == rnnfast("run", folder / "model.pt", "--length", 30, "--seed", 1, stdin="the\n").out
    assert one != rnnfast("run", folder, "--length", 30, "--seed", 2, "--temperature", "2", stdin="the\n").out
    greedy = rnnfast("run", folder, "--length", 30, "--temperature", "0", stdin="the\n").out
    assert greedy == rnnfast("run", folder, "--length", 30, "--top-k", "1", "--backend", "torch", stdin="the\n").out
    assert rnnfast("run", folder, "--length", 3, stdin="\u1234\n").out.startswith("\u1234")


def test_an_online_tagger_remembers_the_lines_before(rnnfast: Callable, trained: Callable) -> None:
    """Line by line gives what the whole text gives at once; a model of both directions reads each line by itself."""
    folder = trained("tag online")
    model = load(folder / "model.pt")
    text = "x = '''a\nb'''\n"
    labels = model.predict(torch.tensor(model.vocabulary["words"].encode(text))[:, None]).labels[:, 0]
    expected = [n for n, c in zip(model.vocabulary["labels"].decode(labels), text, strict=True) if c != "\n"]
    found = rnnfast("run", folder, stdin=text)
    got = [name for line in found.lines for part, name in json.loads(line) for _ in part]
    assert got == expected
    colours = rnnfast("run", folder, "--color", "always", stdin=text).out
    assert re.sub(r"\033\[[0-9;]*m", "", colours) == text


def test_several_answers(rnnfast: Callable, trained: Callable) -> None:
    folder = trained("seq2seq")
    found = rnnfast("run", folder, "--best", "3", stdin="abc\nbcd\n")
    assert [line.split("\t")[0] for line in found.lines] == ["abc"] * 3 + ["bcd"] * 3
    assert len(set(found.lines[:3])) == 3
    # The model has seen small letters only: it reads others as such.
    shout = rnnfast("run", folder, stdin="ABC\n").out
    assert shout.split("\t")[1] == found.lines[0].split("\t")[1] + "\n"


@pytest.mark.parametrize(
    ("case", "stdin", "message"),
    [
        ("classify ts", "1,2:3,4\n\n", "stdin, line 2: expected a series, got an empty line"),
        ("classify ts", "1,2\n", "stdin, line 1: expected 2 dimensions, got 1"),
        ("classify ts", "1,x:1,2\n", "stdin, line 1: expected numbers with commas between them, got 'x'"),
        ("classify ts", "1,2:1\n", "dimensions of one length"),
        ("tag conllu", "\n", "stdin, line 1: expected a sentence, got an empty line"),
        ("seq2seq", b"abc\n\xff\n", "stdin, line 2: expected UTF-8 text, got the byte 0xff"),
        ("forecast", "1\ntwo\n", "stdin, line 2: expected a finite number, got 'two'"),
    ],
)
def test_lines_that_cannot_be_read(
    case: str, stdin: str | bytes, message: str, rnnfast: Callable, trained: Callable
) -> None:
    found = rnnfast("run", trained(case), stdin=stdin)
    assert found.code == 2
    assert message in found.err
    assert len(found.err.strip().splitlines()) == 1


def test_files_that_are_no_models(rnnfast: Callable, data: Path, tmp_path: Path) -> None:
    assert "No such file" in rnnfast("run", tmp_path / "none.pt").err
    assert "No such file" in rnnfast("run", tmp_path).err  # a folder without model.pt
    assert "damaged, or no model" in rnnfast("run", data / "text.txt").err
    LanguageModel(5).save(tmp_path / "other.pt")
    found = rnnfast("run", tmp_path / "other.pt")
    assert found.code == 2
    assert "expected a model of rnnfast train" in found.err


def test_answers_come_one_by_one_and_a_closed_pipe_is_quiet(trained: Callable, tmp_path: Path) -> None:
    folder = trained("forecast")
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    command = [*COMMAND, "run", str(folder)]
    process = subprocess.Popen(command, text=True, env=ENVIRONMENT, cwd=tmp_path, **pipes)
    for value in (1.5, 2.5):  # the second line is only written once the first has its answer
        process.stdin.write(f"{value}\n")
        process.stdin.flush()
        assert json.loads(process.stdout.readline())["after"] == value
    process.stdout.close()
    process.stdin.write("3\n" * 3)
    process.stdin.close()
    assert process.wait(60) == 141
    assert process.stderr.read() == ""


def histories(folder: Path) -> tuple:
    found = results(folder)
    return found["history"]["loss"], found["history"]["validation"], found["results"]["metric"]


@pytest.mark.parametrize("case", ["lm", "tag conllu"])
def test_resuming_gives_the_numbers_of_an_uninterrupted_run(
    case: str, rnnfast: Callable, arguments: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C between two updates, in the middle of an epoch."""
    from rnnfast.tasks.training import Trainer

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
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    process = subprocess.Popen([*COMMAND, "train", *words], text=True, env=ENVIRONMENT, cwd=tmp_path, **pipes)
    deadline = time.monotonic() + 60
    while not (tmp_path / "a/checkpoint.pt").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert "--resume --name a" in stderr
    assert (tmp_path / "a/model.pt").exists()


def test_both_backends_train_the_same(rnnfast: Callable, arguments: dict, tmp_path: Path) -> None:
    """The same seed, the same parameters, the same batches and masks: the losses are equal but for rounding."""
    losses = {}
    for backend in ("rnnfast", "torch"):
        found = rnnfast(
            "train", *arguments["classify text"], "--out", tmp_path, "--name", backend, "--backend", backend
        )
        assert found.code == 0, found.err
        losses[backend] = results(tmp_path / backend)["history"]["loss"]
    assert losses["rnnfast"] == pytest.approx(losses["torch"], rel=1e-4)


def test_divergence_is_said(rnnfast: Callable, arguments: dict, tmp_path: Path) -> None:
    found = rnnfast(
        "train",
        *arguments["classify ts"],
        "--cell",
        "rnn_relu",
        "--clip",
        "1e30",
        "--learning-rate",
        "1e20",
        "--out",
        tmp_path,
    )
    assert found.code == 2
    assert "training diverged at update" in found.err
