# SPDX-License-Identifier: Apache-2.0
"""`rnnfast run MODEL`: a trained model in a pipe. Reads stdin line by line and answers each line as it comes."""

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import torch

from rnnfast.models.base import load
from rnnfast.models.spelling import spell
from rnnfast.runs import InputError
from rnnfast.tasks.data.files import finite, shown
from rnnfast.tasks.data.text import END
from rnnfast.tasks.lm import joined
from rnnfast.tasks.seq2seq import join, split
from rnnfast.tasks.training import MODEL

# ANSI colours of the classes of Python source.
COLOURS = {"keyword": "1;34", "number": "36", "string": "32", "comment": "3;90", "operator": "35"}

Answer = Callable[[Any, argparse.Namespace, Iterator[tuple[int, str]]], Iterable[str]]


def open_model(path: Path, backend: str | None) -> Any:
    """The model of a file, or of a run's folder.

    Raises:
        InputError: there is none, it is damaged, or no model of `rnnfast train`.
    """
    file = path / MODEL if path.is_dir() else path
    try:
        model = load(file, backend)
    except OSError as error:
        raise InputError(f"{file}: {error.strerror or error}") from None
    except ValueError as error:
        raise InputError(str(error)) from None
    if model.extra.get("task") != model.kind:
        raise InputError(f"{file}: expected a model of rnnfast train, got one without its task's settings")
    return model


def run(args: argparse.Namespace) -> int:
    """The command; returns its exit code. Raises InputError for what the user can mend."""
    if args.threads:
        torch.set_num_threads(args.threads)
    model = open_model(Path(args.model), args.backend)
    answer: Answer = {
        "lm": generate, "classify": classify, "tag": label, "seq2seq": pronounce, "forecast": forecast,
    }[model.kind]  # fmt: skip
    with torch.no_grad():
        for piece in answer(model, args, _lines()):
            sys.stdout.write(piece)
            sys.stdout.flush()
    return 0


def _lines() -> Iterator[tuple[int, str]]:
    """Numbered lines of stdin without their ends, each as soon as it is there.

    Raises:
        InputError: a line is not UTF-8.
    """
    for number, raw in enumerate(iter(sys.stdin.buffer.readline, b""), 1):
        yield number, _decoded(number, raw)


def _decoded(number: int, raw: bytes) -> str:
    try:
        return raw.decode("utf-8").rstrip("\r\n")
    except UnicodeDecodeError as error:
        byte = raw[error.start]
        raise InputError(f"stdin, line {number}: expected UTF-8 text, got the byte 0x{byte:02x}") from None


def _filled(lines: Iterator[tuple[int, str]], expected: str) -> Iterator[tuple[int, str]]:
    """The lines; InputError for an empty one."""
    for number, line in lines:
        if not line.strip():
            raise InputError(f"stdin, line {number}: expected {expected}, got an empty line")
        yield number, line


def generate(model: Any, args: argparse.Namespace, lines: Iterator[tuple[int, str]]) -> Iterable[str]:
    """Each line is a beginning; it is repeated and goes on, symbol by symbol."""
    vocabulary, words = model.vocabulary["symbols"], model.extra["unit"] == "word"
    random = torch.Generator().manual_seed(args.seed)
    for _, line in lines:
        given = [END, *line.split()] if words else list(line or "\n")
        yield line + (" " if words and line else "")
        prompt = torch.tensor(vocabulary.encode(given))
        drawn = model.stream(prompt, args.temperature, args.top_k, args.top_p, random)
        for symbol in islice(drawn, args.length):
            yield joined(vocabulary.decode([symbol]), words)
        yield "\n"


def classify(model: Any, args: argparse.Namespace, lines: Iterator[tuple[int, str]]) -> Iterable[str]:
    """Each line is a text, or a series: values with commas between them, dimensions with colons. Answers the class and
    its probability."""
    for number, line in _filled(lines, "a text" if "symbols" in model.vocabulary else "a series"):
        if "symbols" in model.vocabulary:
            symbols = line.split() if model.extra["unit"] == "word" else list(line)
            x = torch.tensor(model.vocabulary["symbols"].encode(symbols))[:, None]
        else:
            x = _series(number, line)
            if x.shape[1] != len(model.extra["location"]):
                raise InputError(
                    f"stdin, line {number}: expected {len(model.extra['location'])} dimensions, got {x.shape[1]}"
                )
            x = ((x - torch.tensor(model.extra["location"])) / torch.tensor(model.extra["scale"]))[:, None]
        best, probabilities = model.predict(x)
        name = model.vocabulary["labels"].decode(best)[0]
        yield f"{name}\t{probabilities[0, int(best[0])].item():.4f}\n"


def _series(number: int, line: str) -> torch.Tensor:
    """[T, F] of a line as in a .ts file, without the label."""
    rows = []
    for part in line.split(":"):
        values = [finite(v) for v in part.split(",")]
        if None in values:
            wrong = part.split(",")[values.index(None)]
            raise InputError(f"stdin, line {number}: expected numbers with commas between them, got {shown(wrong)}")
        rows.append(values)
    if len({len(row) for row in rows}) != 1:
        raise InputError(f"stdin, line {number}: expected dimensions of one length, got {[len(row) for row in rows]}")
    return torch.tensor(rows).t()


def label(model: Any, args: argparse.Namespace, lines: Iterator[tuple[int, str]]) -> Iterable[str]:
    """Characters: each line's spans as JSON, or in colours; a model of one direction remembers the lines before. Words:
    token/label pairs as JSON, or with intents the call that the sentence asks for."""
    if model.extra["unit"] == "char":
        yield from _highlight(model, args, lines)
        return
    for _, line in _filled(lines, "a sentence"):
        words = line.split()
        if "intents" in model.vocabulary:
            yield json.dumps(model.understand(words), ensure_ascii=False) + "\n"
            continue
        spelling = spell([words], model.vocabulary["characters"]) if "characters" in model.vocabulary else None
        x = torch.tensor(model.vocabulary["words"].encode(words))[:, None]
        labels = model.vocabulary["labels"].decode(model.predict(x, None, spelling).labels[:, 0])
        yield json.dumps(list(zip(words, labels, strict=True)), ensure_ascii=False) + "\n"


def _highlight(model: Any, args: argparse.Namespace, lines: Iterator[tuple[int, str]]) -> Iterable[str]:
    coloured = args.color == "always" or (args.color == "auto" and sys.stdout.isatty())
    online = not model.bidirectional and model.crf is None
    stream = model.stream() if online else None
    for _, line in lines:
        text = line + "\n"
        x = torch.tensor(model.vocabulary["words"].encode(text))[:, None]
        labels = stream(x).argmax(-1)[:, 0] if stream else model.predict(x).labels[:, 0]
        names = model.vocabulary["labels"].decode(labels)
        pairs = zip(line, names, strict=False)  # without the end of the line
        spans = [("".join(c for c, _ in group), name) for name, group in groupby(pairs, key=lambda pair: pair[1])]
        if not coloured:
            yield json.dumps(spans, ensure_ascii=False) + "\n"
        else:
            yield "".join(
                f"\033[{COLOURS[name]}m{part}\033[0m" if name in COLOURS else part for part, name in spans
            ) + "\n"  # fmt: skip


def pronounce(model: Any, args: argparse.Namespace, lines: Iterator[tuple[int, str]]) -> Iterable[str]:
    """Each line is a source; answers it, a tab and the target: the best, or one line for each of the N best."""
    extra, vocabulary = model.extra, model.vocabulary["source"]
    lower = all(symbol == symbol.lower() for symbol in vocabulary.symbols)  # of what it has learned
    beam = max(args.beam, args.best)
    for _, line in _filled(lines, "a source sequence"):
        source = line.strip().lower() if lower else line.strip()
        x = torch.tensor(vocabulary.encode(split(source, extra["source_unit"])))[:, None]
        found = model.beam(x, None, beam, extra["longest"])
        for k in range(args.best):
            if found.scores[0, k].isneginf():
                break  # no more than k targets are possible
            target = model.vocabulary["target"].decode(found.symbols[0, k, : int(found.lengths[0, k])])
            yield f"{line.strip()}\t{join(target, extra['target_unit'])}\n"


def forecast(model: Any, args: argparse.Namespace, lines: Iterator[tuple[int, str]]) -> Iterable[str]:
    """Each line is the next value; answers the forecasts from there as JSON: median and the 80% interval."""
    stream = model.stream()
    for number, line in _filled(lines, "a number"):
        value = finite(line)
        if value is None:
            raise InputError(f"stdin, line {number}: expected a finite number, got {shown(line)}")
        found = stream(torch.tensor([[value]]))
        low, median, high = (_rounded(found.quantile(p)) for p in (0.1, 0.5, 0.9))
        yield json.dumps({"after": value, "median": median, "low": low, "high": high}) + "\n"


def _rounded(values: torch.Tensor) -> list[float]:
    return [float(f"{v:.5g}") for v in values.flatten().tolist()]
