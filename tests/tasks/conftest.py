# SPDX-License-Identifier: Apache-2.0
"""Tiny data of every kind, and the command line within this process."""

import io
import json
import random
import sys
from collections.abc import Callable
from contextlib import nullcontext, redirect_stdout
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock, patch

import pytest
import torch

from rnnfast.cli import main
from rnnfast.tasks import plots


@dataclass
class Result:
    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()


@pytest.fixture
def rnnfast(capfd: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Runs `rnnfast ...` as the shell would, stdin given as text or bytes."""

    def call(*words: object, stdin: str | bytes = b"") -> Result:
        raw = stdin.encode() if isinstance(stdin, str) else stdin
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(raw)))
        capfd.readouterr()
        try:
            code = main([str(word) for word in words])
        except SystemExit as error:  # argparse
            code = int(error.code or 0)
        return Result(code, *capfd.readouterr())

    torch.set_num_threads(1)
    return call


TINY = ("--hidden", "8", "--embedding", "4", "--epochs", "2", "--batch", "4")


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of tiny files that a net can learn."""
    folder = tmp_path_factory.mktemp("data")
    draw = random.Random(5)
    (folder / "text.txt").write_text("the quick brown fox jumps over the lazy dog.\n" * 40)
    (folder / "short.txt").write_text("the quick")
    reviews = [f"{' '.join(draw.choices('abc', k=4))} {w}\t{w}" for w in ("good", "bad") for _ in range(20)]
    (folder / "reviews.tsv").write_text("\n".join(reviews) + "\n")
    (folder / "other.tsv").write_text("a film\tmixed\n")
    header = "@problemName x\n@univariate false\n@dimensions 2\n@classLabel true up down\n@data\n"
    cases = []
    for i in range(24):
        steps = [draw.random() + (j if i % 2 else -j) for j in range(4 + i % 3)]
        row = ",".join(f"{v:.3f}" for v in steps)
        cases.append(f"{row}:{row}:{'up' if i % 2 else 'down'}")
    (folder / "x.ts").write_text(header + "\n".join(cases) + "\n")
    sentence = ["# text", "1\tdogs\tdog\tNOUN" + "\t_" * 6, "2\trun\trun\tVERB" + "\t_" * 6, ""]
    (folder / "x.conllu").write_text("\n".join(sentence * 12) + "\n")
    (folder / "x.bio").write_text("to O\nnew B-city\nyork I-city\n\n" * 12)
    (folder / "new.bio").write_text("to B-time\n\n")
    for part, n in (("train", 12), ("valid", 3), ("test", 3)):
        (folder / "slots" / part).mkdir(parents=True)
        (folder / f"slots/{part}/seq.in").write_text("fly to boston\nbye\n" * n)
        (folder / f"slots/{part}/seq.out").write_text("O O B-to\nO\n" * n)
        (folder / f"slots/{part}/label").write_text("flight\nend\n" * n)
    (folder / "code").mkdir()
    for i in range(4):
        (folder / f"code/{i}.py").write_text(f"def f{i}(x):  # {i}\n    return 'a' + x * {i}\n" * 5)
    words = ["".join(draw.choices("abcd", k=3)) for _ in range(40)]
    (folder / "pairs.tsv").write_text("".join(f"{w}\t{w[::-1].upper()}\n" for w in words))
    values = "".join(f"{i},{(i % 4) * 2 + draw.random():.3f}\n" for i in range(90))
    (folder / "sales.csv").write_text("week,sold\n" + values)
    (folder / "flat.csv").write_text("sold\n" + "1\n" * 90)
    return folder


FORECAST = ("--horizon", "3", "--season", "4", "--test-length", "12", "--valid-length", "8", "--window", "20")


@pytest.fixture(scope="session")
def arguments(data: Path) -> dict[str, tuple[object, ...]]:
    """The command line of a tiny training of each task, each kind of data."""
    return {
        "lm": ("lm", "--text", data / "text.txt", "--chunk", "16", *TINY),
        "lm words": ("lm", "--unit", "word", "--text", data / "text.txt", "--chunk", "5", "--tied", *TINY),
        "classify ts": ("classify", "--data", data / "x.ts", *TINY),
        "classify text": ("classify", "--data", data / "reviews.tsv", "--unit", "word", *TINY),
        "classify none": ("classify", "--data", data / "x.ts", "--cell", "none", *TINY),
        "tag none": ("tag", "--data", data / "x.conllu", "--cell", "none", *TINY),
        "tag python": ("tag", "--data", data / "code", "--segment", "40", *TINY),
        "tag online": ("tag", "--data", data / "code", "--online", *TINY),
        "tag conllu": ("tag", "--data", data / "x.conllu", *TINY),
        "tag crf": ("tag", "--data", data / "x.conllu", "--no-characters", "--crf", *TINY),
        "tag bio": ("tag", "--data", data / "x.bio", *TINY),
        "tag slots": ("tag", "--data", data / "slots", *TINY),
        "seq2seq": ("seq2seq", "--data", data / "pairs.tsv", "--beam", "3", *TINY),
        "seq2seq plain": ("seq2seq", "--data", data / "pairs.tsv", "--attention", "none", "--cell", "gru", *TINY),
        "forecast": ("forecast", "--data", data / "sales.csv", "--column", "sold", *FORECAST, *TINY),
        "forecast gaussian": ("forecast", "--data", data / "sales.csv", "--column", "sold", "--output", "gaussian",
                              "--residual", "--cell", "rnn", *FORECAST, *TINY),
    }  # fmt: skip


@pytest.fixture(scope="session")
def trained(
    arguments: dict[str, tuple[object, ...]], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Path]:
    """The folder of a finished tiny run of a case, trained once for all tests."""
    out = tmp_path_factory.mktemp("trained")

    @cache
    def folder(case: str) -> Path:
        words = ["train", *map(str, arguments[case]), "--out", str(out), "--name", case]
        with patch.multiple(plots, **DRAWING), redirect_stdout(io.StringIO()) as printed:
            assert main(words) == 0
        (out / case / "stdout").write_text(printed.getvalue())
        return out / case

    return folder


DRAWING = {name: getattr(plots, name) for name in ("_figure", "curves")}


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes longer than training, here."""
    monkeypatch.setattr(plots, "_figure", lambda *_, **__: nullcontext(MagicMock()))
    monkeypatch.setattr(plots, "curves", lambda *_: None)


def results(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "results.json").read_text())
