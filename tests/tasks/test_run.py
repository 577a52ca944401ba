# SPDX-License-Identifier: Apache-2.0
"""`rnnfast run` in a pipe: one answer a line as it comes, online models, errors."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from rnnfast.cli import main
from rnnfast.models import LanguageModel, load
from tests.tasks.conftest import results
from tests.tasks.test_train import CASES, check_answer, needs

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


class Dialogue:
    """stdin whose next line is only asked for when the answer to the one before can be read from stdout's pipe."""

    def __init__(self, lines: list[str], pipe: int) -> None:
        self.lines, self.pipe = lines, pipe
        self.asked = 0
        self.answers: list[str] = []
        self.buffer = self
        os.set_blocking(pipe, False)

    def readline(self) -> bytes:
        if self.asked:
            try:
                self.answers.append(os.read(self.pipe, 1 << 16).decode())
            except BlockingIOError:
                self.answers.append("")
        self.asked += 1
        return f"{self.lines.pop(0)}\n".encode() if self.lines else b""


@pytest.mark.parametrize("case", CASES)
def test_every_task_answers_each_line_at_once(
    case: str, rnnfast: Callable, trained: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """stdout is a pipe, so that Python holds back what is not flushed."""
    line, _, package = CASES[case]
    needs(package)
    folder = trained(case)
    read, write = os.pipe()
    dialogue = Dialogue([line] * 2, read)
    with open(read, "rb"), open(write, "w", encoding="utf-8") as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        monkeypatch.setattr(sys, "stdin", dialogue)
        assert main(["run", str(folder), "--length", "5"]) == 0
        monkeypatch.undo()
    assert len(dialogue.answers) == 2
    for answer in dialogue.answers:
        assert answer.endswith("\n")
        check_answer(case, line, answer.splitlines()[0])


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
