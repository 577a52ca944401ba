# SPDX-License-Identifier: Apache-2.0
"""`rnnfast train seq2seq`: from one sequence to another, not aligned with it; by default spelling to pronunciation."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from rnnfast.models import Seq2Seq
from rnnfast.models.vocabulary import END, START, Vocabulary
from rnnfast.runs import InputError
from rnnfast.tasks import metrics, plots
from rnnfast.tasks.arguments import add_files
from rnnfast.tasks.batches import by_length, in_order, pad_symbols
from rnnfast.tasks.data.pairs import read_pairs
from rnnfast.tasks.data.pronunciations import pronunciations
from rnnfast.tasks.data.split import Parts, by_groups, from_files
from rnnfast.tasks.settings import Settings, Task, fingerprint, initialiser

VALIDATED = 1000  # validation inputs that are decoded at each evaluation


class Seq2SeqTask(Task):
    """Pairs of symbol sequences; a source with several targets is judged by the nearest."""

    name = "seq2seq"
    metric = "symbol error rate"
    higher_is_better = False
    item = "pair"
    defaults: ClassVar[Mapping[str, Any]] = {
        "hidden": 256, "layers": 1, "embedding": 64, "dropout": 0.3, "epochs": 12, "batch": 128, "learning_rate": 3e-3,
        "patience": 4, "beam": 5, "attention": "general", "source_unit": "char", "target_unit": None, "limit": None,
    }  # fmt: skip

    @staticmethod
    def add_arguments(parser: argparse.ArgumentParser) -> None:
        """The task's own options."""
        add_files(parser, "FILE", "source<TAB>target lines (default: the CMU pronouncing dictionary)")
        parser.add_argument("--source-unit", choices=("char", "word"), help="symbols of the source (default: char)")
        parser.add_argument("--target-unit", choices=("char", "word"), help="of the target (default: char; of the "
                            "dictionary word, that is phonemes)")  # fmt: skip
        parser.add_argument("--attention", choices=("dot", "general", "none"), help="Luong's (default: general)")
        parser.add_argument("--beam", type=int, metavar="K", help="hypotheses of the test's beam search (default: 5)")
        parser.add_argument("--limit", type=int, metavar="N", help="use only N pairs")

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        o = self.options = settings.options
        self.dictionary = not o.get("data") and not o.get("train")
        self.source_unit = o["source_unit"]
        self.target_unit = o["target_unit"] or ("word" if self.dictionary else "char")
        self.parts = self._read()
        pairs = self.parts.train
        self.source = Vocabulary.build((split(s, self.source_unit) for s, _ in pairs))
        self.target = Vocabulary.build((split(t, self.target_unit) for _, t in pairs), special=(START, END))
        self.references = {part: self._references(getattr(self.parts, part)) for part in ("valid", "test")}
        self.encoded = [
            (self.source.encode(split(s, self.source_unit)), self.target.encode(split(t, self.target_unit)))
            for s, t in pairs
        ]
        self.lengths = [64 * len(t) + len(s) for s, t in self.encoded]
        torch.manual_seed(settings.seed)
        attention = None if o["attention"] == "none" else o["attention"]
        self.model = Seq2Seq(
            len(self.source), len(self.target), start=self.target[START], end=self.target[END],
            embedding=settings.embedding, hidden=settings.hidden, layers=settings.layers, dropout=settings.dropout,
            cell=settings.cell, backend=settings.backend, attention=attention,
            init=initialiser(settings.init, settings.cell),
        )  # fmt: skip
        self.model.vocabulary = {"source": self.source, "target": self.target}
        self.longest = max(len(t) for _, t in self.encoded) + 5
        self.model.extra = {
            "task": self.name, "source_unit": self.source_unit, "target_unit": self.target_unit,
            "longest": self.longest,
        }  # fmt: skip

    def _read(self) -> Parts[tuple[str, str]]:
        o, seed = self.options, self.settings.seed
        if not self.dictionary:
            return from_files(o, lambda path: read_pairs(path)[: o["limit"]], lambda pair: pair[0], seed)
        if o.get("valid") or o.get("test"):
            raise InputError("--valid and --test: expected --train with them")
        pairs = pronunciations()
        if o["limit"] and o["limit"] < len(pairs):  # spread over the alphabet
            pairs = [pairs[i * len(pairs) // o["limit"]] for i in range(o["limit"])]
        return by_groups(pairs, lambda pair: pair[0], seed, valid=0.02, test=0.1)

    def _references(self, pairs: Sequence[tuple[str, str]]) -> dict[str, list[list[str]]]:
        """All listed targets of each source."""
        found: dict[str, list[list[str]]] = {}
        for source, target in pairs:
            found.setdefault(source, []).append(split(target, self.target_unit))
        return found

    def plan(self, epoch: int) -> Sequence[list[int]]:
        """Indices of each batch."""
        return by_length(self.lengths, self.settings.batch, self.settings.seed, epoch)

    def items(self) -> int:
        """Pairs of an epoch."""
        return len(self.encoded)

    def loss(self, batch: list[int]) -> tuple[Tensor, int]:
        """Mean nats a target symbol."""
        source, source_lengths = pad_symbols([self.encoded[i][0] for i in batch])
        target, target_lengths = pad_symbols([self.encoded[i][1] for i in batch])
        return self.model.loss(source, target, source_lengths, target_lengths), len(batch)

    def answer(self, sources: Sequence[str], beam: int) -> dict[str, list[str]]:
        """The model's target of each source."""
        encoded = [self.source.encode(split(s, self.source_unit)) for s in sources]
        found = {}
        for batch in in_order([len(s) for s in encoded], 256):
            padded, lengths = pad_symbols([encoded[i] for i in batch])
            best = self.model.beam(padded, lengths, beam, self.longest)
            for row, i in enumerate(batch):
                found[sources[i]] = self.target.decode(best.symbols[row, 0, : int(best.lengths[row, 0])])
        return found

    def validate(self) -> float:
        """Symbol error rate of greedy search on at most 1000 sources."""
        references = dict(list(self.references["valid"].items())[:VALIDATED])
        return metrics.error_rates(references, self.answer(list(references), 1))[0]

    def test(self, folder: Path) -> dict[str, Any]:
        """Error rates of greedy and beam search; where the decoder looked."""
        references = self.references["test"]
        rates = {}
        for search, beam in (("greedy", 1), ("beam", self.options["beam"])):
            answers = self.answer(list(references), beam)
            rates[search] = dict(
                zip(("symbol_error", "sequence_error"), metrics.error_rates(references, answers), strict=True)
            )
        examples = [(s, " ".join(references[s][0]), " ".join(answers[s])) for s in list(references)[:20]]
        if self.options["attention"] != "none":
            self._draw_attention(folder / "attention.png", list(references)[:6], answers)
        return {
            "metric": rates["beam"]["symbol_error"],
            **rates,
            "beam_size": self.options["beam"],
            "examples": examples,
        }

    def _draw_attention(self, path: Path, sources: Sequence[str], answers: Mapping[str, list[str]]) -> None:
        """One map a source, of its answer."""
        maps = []
        for source in sources:
            letters, answer = split(source, self.source_unit), answers[source]
            x = torch.tensor(self.source.encode(letters))[:, None]
            y = torch.tensor(self.target.encode(answer), dtype=torch.int64)[:, None]
            weights = self.model(x, y)[1]
            maps.append((letters, [*answer, END], weights[:, 0].tolist()))
        plots.attention_maps(path, maps)

    def data(self) -> dict[str, Any]:
        """Sizes, and numbers that depend on all pairs."""
        checksum = sum((i % 8191 + 1) * n for i, n in enumerate(self.lengths))
        pairs = [pair for part in self.parts.sizes() for pair in getattr(self.parts, part)]
        return self.parts.sizes() | {
            "source_symbols": len(self.source), "target_symbols": len(self.target), "checksum": checksum,
            "content": fingerprint(text for pair in pairs for text in pair),
        }  # fmt: skip

    def summary(self, results: Mapping[str, Any]) -> list[str]:
        """Some answers, and the error rates."""
        lines = [f"    {s:16} {got}" + ("" if got == ref else f"   (listed: {ref})")
                 for s, ref, got in results["examples"][:8]]  # fmt: skip
        for search in ("greedy", "beam"):
            r = results[search]
            lines.append(
                f"test, {search}: {100 * r['symbol_error']:.2f}% of symbols, {100 * r['sequence_error']:.2f}% of "
                f"sequences wrong ({len(self.references['test'])} sources)"
            )
        return lines


def split(text: str, unit: str) -> list[str]:
    """A line's symbols."""
    return text.split() if unit == "word" else list(text)


def join(symbols: Sequence[str], unit: str) -> str:
    """The line again."""
    return (" " if unit == "word" else "").join(symbols)
