# SPDX-License-Identifier: Apache-2.0
"""`rnnfast train lm`: a language model of characters or words, by truncated BPTT over long streams."""

import argparse
import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from rnnfast.demo.text import compressed_bits, streams
from rnnfast.models import LanguageModel
from rnnfast.models.vocabulary import Vocabulary
from rnnfast.runs import InputError
from rnnfast.tasks.data.text import END, UNKNOWN, pydoc_topics, read_characters, read_sentences, split_text
from rnnfast.tasks.settings import Settings, Task, fingerprint, generator, initialiser

LN2 = math.log(2)


class LanguageTask(Task):
    """Streams of symbols side by side, cut into chunks; the state goes from chunk to chunk, the gradient does not."""

    name = "lm"
    higher_is_better = False
    defaults: ClassVar[Mapping[str, Any]] = {
        "hidden": 384, "layers": 1, "embedding": 64, "dropout": 0.3, "epochs": 14, "batch": 32, "learning_rate": 4e-3,
        "patience": 3, "chunk": 64, "unit": "char", "min_count": 2, "tied": False,
    }  # fmt: skip

    @staticmethod
    def add_arguments(parser: argparse.ArgumentParser) -> None:
        """The task's own options."""
        parser.add_argument("--text", nargs="+", metavar="FILE", help="UTF-8 text (default: Python's documentation); "
                            "the last tenth is the test part, a twentieth before it the validation part")  # fmt: skip
        parser.add_argument("--train", metavar="FILE", help="instead of --text, with --valid and --test")
        parser.add_argument("--valid", metavar="FILE", help="validation text")
        parser.add_argument("--test", metavar="FILE", help="test text")
        parser.add_argument("--unit", choices=("char", "word"), help="word: one sentence a line (default: char)")
        parser.add_argument(
            "--min-count", type=int, metavar="N", help="words rarer than this become <unk> (default: 2)"
        )
        parser.add_argument("--chunk", type=int, metavar="T", help="symbols of one update's BPTT (default: 64)")
        parser.add_argument("--tied", action="store_const", const=True, help="the output shares the embedding's matrix")

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.options = settings.options
        self.words = self.options["unit"] == "word"
        self.item = "word" if self.words else "char"
        self.metric = "perplexity" if self.words else "bits per character"
        texts = self._read()
        self.test_text = texts[2]
        if self.words:
            self.vocabulary = Vocabulary.build(
                [texts[0]], min_count=self.options["min_count"], padding=None, unknown=UNKNOWN, special=(END,)
            )
        else:
            self.vocabulary = Vocabulary.build([texts[0]], padding=None, unknown=UNKNOWN)
        self.train, self.valid, self.held_out = (torch.tensor(self.vocabulary.encode(text)) for text in texts)
        if self.train.numel() < 4 * settings.batch:
            most = self.train.numel() // 4
            raise InputError(f"--batch {settings.batch}: expected at most {most} streams for this text")
        for part, symbols in (("validation", self.valid), ("test", self.held_out)):
            if symbols.numel() < 2:
                raise InputError(f"{part} text: expected at least 2 {self.item}s, got {symbols.numel()}")
        self.streams = streams(self.train, settings.batch)
        torch.manual_seed(settings.seed)
        self.model = LanguageModel(
            len(self.vocabulary), settings.hidden, settings.layers, settings.embedding, settings.dropout,
            cell=settings.cell, backend=settings.backend, tied=self.options["tied"],
            init=initialiser(settings.init, settings.cell),
        )  # fmt: skip
        self.model.vocabulary = {"symbols": self.vocabulary}
        self.model.extra = {"task": self.name, "unit": self.options["unit"]}
        self.state: Any = None

    def _read(self) -> list[Sequence[str]]:
        """Training, validation and test symbols."""
        o = self.options
        if o.get("train"):
            if o.get("text") or not (o.get("valid") and o.get("test")):
                raise InputError("--train: expected --valid and --test with it, and no --text")
            return [self._symbols([Path(o[part])]) for part in ("train", "valid", "test")]
        if self.words:
            if not o.get("text"):
                raise InputError("--unit word: expected --text or --train, one sentence a line")
            lines = read_sentences([Path(p) for p in o["text"]])
            if len(lines) < 20:
                raise InputError(f"--text: expected at least 20 sentences to split, got {len(lines)}")
            test, valid = len(lines) - len(lines) // 10, len(lines) - len(lines) // 10 - len(lines) // 20
            return [_joined(part) for part in (lines[:valid], lines[valid:test], lines[test:])]
        text = read_characters([Path(p) for p in o["text"]]) if o.get("text") else pydoc_topics()
        rest, test_text = split_text(text)
        train, valid_text = split_text(rest, 0.05)
        return [train, valid_text, test_text]

    def _symbols(self, paths: list[Path]) -> Sequence[str]:
        return _joined(read_sentences(paths)) if self.words else read_characters(paths)

    def plan(self, epoch: int) -> Sequence[tuple[int, int]]:
        """Begin and end of each chunk; the first is shorter by a random part, so that borders move."""
        chunk, last = self.options["chunk"], self.streams.shape[0] - 1
        first = int(torch.randint(1, chunk + 1, (), generator=generator(self.settings.seed, epoch)))
        borders = [0, *range(min(first, last), last, chunk), last]
        return [(a, b) for a, b in pairwise(borders) if b > a]

    def items(self) -> int:
        """Symbols of an epoch."""
        return (self.streams.shape[0] - 1) * self.streams.shape[1]

    def loss(self, batch: tuple[int, int]) -> tuple[Tensor, int]:
        """Mean nats a symbol of the chunk."""
        begin, end = batch
        x, target = self.streams[begin:end], self.streams[begin + 1 : end + 1]
        loss, state = self.model.loss(x, target, None if begin == 0 else self.state)
        self.state = tuple(s.detach() for s in state) if isinstance(state, tuple) else state.detach()
        return loss, x.numel()

    def carry(self) -> list[Tensor]:
        """The recurrent state."""
        return [] if self.state is None else list(self.state) if isinstance(self.state, tuple) else [self.state]

    def set_carry(self, carry: list[Tensor]) -> None:
        """h, or h and c."""
        self.state = None if not carry else carry[0] if len(carry) == 1 else tuple(carry)

    def figure(self, symbols: Tensor) -> float:
        """Bits a character, or perplexity, of a text read once from front to back."""
        perplexity: float = self.model.perplexity(symbols[:, None])
        return perplexity if self.words else math.log2(perplexity)

    def validate(self) -> float:
        """The figure of the validation text."""
        return self.figure(self.valid)

    def test(self, folder: Path) -> dict[str, Any]:
        """The figure of the test text, and samples in samples.txt."""
        samples = [self.sample(self.held_out[:50], temperature) for temperature in (0.5, 0.8, 1.0)]
        (folder / "samples.txt").write_text("\n\n--------\n".join(samples) + "\n", encoding="utf-8")
        results: dict[str, Any] = {
            "metric": self.figure(self.held_out),
            "unknown": self.held_out.eq(self.vocabulary.unknown_id or 0).sum().item() / self.held_out.numel(),
            "sample": samples[1],
        }
        if not self.words:
            results["compressors"] = compressed_bits("".join(self.test_text))
        return results

    def sample(self, prompt: Tensor, temperature: float, length: int = 400) -> str:
        """What the model writes after a prompt: `given|generated`."""
        drawn = self.model.generate(prompt, length, temperature, generator=generator(self.settings.seed))
        return (
            joined(self.vocabulary.decode(prompt), self.words) + "|" + joined(self.vocabulary.decode(drawn), self.words)
        )

    def data(self) -> dict[str, Any]:
        """Sizes, and numbers that depend on every symbol."""
        sizes = {"train": self.train.numel(), "valid": self.valid.numel(), "test": self.held_out.numel()}
        position = torch.arange(self.train.numel()) % 8191 + 1
        content = fingerprint([*self.vocabulary.symbols, self.train, self.valid, self.held_out])
        checksum = int((self.train * position).sum())
        return sizes | {"symbols": len(self.vocabulary), "checksum": checksum, "content": content}

    def summary(self, results: Mapping[str, Any]) -> list[str]:
        """Sample and figures."""
        lines = ["sample (given|generated):", *("    " + line for line in results["sample"].splitlines())]
        lines += [f"{name:14} {bits:.3f} bits per character (this part alone)"
                  for name, bits in results.get("compressors", {}).items()]  # fmt: skip
        return [*lines, f"test: {results['metric']:.3f} {self.metric}"]


def _joined(sentences: Sequence[Sequence[str]]) -> list[str]:
    """Sentences as one sequence, an end after each."""
    return [word for sentence in sentences for word in (*sentence, END)]


def joined(symbols: Sequence[str], words: bool) -> str:
    """Symbols as text."""
    if words:
        return "".join("\n" if s == END else s + " " for s in symbols)
    return "".join("\N{REPLACEMENT CHARACTER}" if s == UNKNOWN else s for s in symbols)
