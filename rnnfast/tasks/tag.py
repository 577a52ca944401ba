# SPDX-License-Identifier: Apache-2.0
"""`rnnfast train tag`: a label for each token; by default the class of each character of Python source."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from rnnfast.models import SequenceTagger
from rnnfast.models.spelling import spell
from rnnfast.models.vocabulary import Vocabulary
from rnnfast.runs import InputError
from rnnfast.tasks import metrics, plots
from rnnfast.tasks.arguments import add_files
from rnnfast.tasks.batches import by_budget, by_length, pad_symbols
from rnnfast.tasks.data.files import listed, package, shown
from rnnfast.tasks.data.tagged import Tagged
from rnnfast.tasks.settings import Settings, Task, fingerprint, initialiser
from rnnfast.tasks.tag_data import FORMATS, read_parts

RARE = 0.3  # the probability of reading a word that occurs once as the unknown one, so that this one is learned
STEPS = 65536  # of one batch in evaluation
PICTURE = 30  # labels in a confusion matrix at most


class TagTask(Task):
    """Characters of Python source, words of CoNLL-U or BIO files, slots and intents of sentences."""

    name = "tag"
    higher_is_better = True
    item = "token"
    defaults: ClassVar[Mapping[str, Any]] = {
        "hidden": 128, "layers": 1, "embedding": 64, "dropout": 0.1, "epochs": 2, "batch": 32, "learning_rate": 4e-3,
        "patience": 3, "bidirectional": True, "crf": False, "characters": True, "format": None, "column": "UPOS",
        "segment": 512, "limit": None, "unknown_labels": "error",
    }  # fmt: skip

    @staticmethod
    def add_arguments(parser: argparse.ArgumentParser) -> None:
        """The task's own options."""
        add_files(parser, "PATH", "a file or folder (default: the standard library's source)")
        parser.add_argument(
            "--format", choices=FORMATS, help="(default: what the name says; .conllu, .py, seq.in, else bio)"
        )
        parser.add_argument("--column", metavar="NAME", help="CoNLL-U's column of labels (default: UPOS)")
        online: dict[str, Any] = {"dest": "bidirectional", "action": "store_const", "const": False}
        parser.add_argument("--online", help="one direction: label each token as it comes", **online)
        parser.add_argument("--crf", action="store_const", const=True, help="judge neighbouring labels together")
        letters: dict[str, Any] = {"dest": "characters", "action": "store_const", "const": False}
        parser.add_argument("--no-characters", help="of words: without features of their spelling", **letters)
        parser.add_argument("--segment", type=int, metavar="T", help="longer training sequences are cut (default: 512)")
        parser.add_argument("--limit", type=int, metavar="N", help="use only N files, or sentences of each part")
        unknown = "labels of validation and test that training has not (default: error)"
        parser.add_argument("--unknown-labels", choices=("error", "wrong"), help=unknown)

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        o = self.options = settings.options
        self.format, self.parts = read_parts(o, settings.seed)
        self.python = self.format == "python"
        self.metric = {"python": "accuracy without white space", "conllu": "accuracy"}.get(self.format, "entity F1")
        train = self.parts.train
        self.labels = Vocabulary.build((s.labels for s in train), padding=None, unknown=None)
        self.intents = Vocabulary.build(([s.intent or ""] for s in train), padding=None, unknown=None)
        self._check()
        if self.metric == "entity F1":
            package("seqeval.metrics", "the entity F1")  # says that it is not installed before an epoch is trained
        self.words = Vocabulary.build(s.tokens for s in train)
        counts: dict[str, int] = {}
        for s in train:
            for token in s.tokens:
                counts[token] = counts.get(token, 0) + 1
        self.rare = torch.tensor([counts.get(w, 0) == 1 for w in self.words.symbols])
        self.spelled = o["characters"] and not self.python
        self.characters = Vocabulary.build(counts) if self.spelled else None
        self.segments = [
            Tagged(s.tokens[i : i + o["segment"]], s.labels[i : i + o["segment"]], s.intent)
            for s in train
            for i in range(0, len(s.tokens), o["segment"])
        ]
        slots = self.format == "slots"
        torch.manual_seed(settings.seed)
        self.model = SequenceTagger(
            len(self.labels), symbols=len(self.words), embedding=settings.embedding, hidden=settings.hidden,
            layers=settings.layers, dropout=settings.dropout, cell=settings.cell, backend=settings.backend,
            bidirectional=o["bidirectional"], crf=o["crf"], intents=len(self.intents) if slots else None,
            characters=len(self.characters) if self.characters else None,
            init=initialiser(settings.init, settings.cell),
        )  # fmt: skip
        self.model.vocabulary = {"words": self.words, "labels": self.labels}
        if self.characters:
            self.model.vocabulary["characters"] = self.characters
        if slots:
            self.model.vocabulary["intents"] = self.intents
        self.model.extra = {"task": self.name, "unit": "char" if self.python else "word", "format": self.format}

    def _check(self) -> None:
        """InputError for labels and intents that training has not seen, unless they are to count as wrong."""
        if self.options["unknown_labels"] == "wrong":
            return
        for part in ("valid", "test"):
            where = (part == "test" and self.parts.test_source) or f"{part} part"
            for number, sentence in enumerate(getattr(self.parts, part), 1):
                intent = [] if sentence.intent is None else [sentence.intent]
                for what, names, known in (("label", sentence.labels, self.labels), ("intent", intent, self.intents)):
                    new = next((name for name in names if name not in known), None)
                    if new is not None:
                        raise InputError(
                            f"{where}, sentence {number}: expected {what}s of the training part only "
                            f"({listed(known.symbols, 6)}), got {shown(new)}; --unknown-labels wrong counts it as wrong"
                        )

    def plan(self, epoch: int) -> Sequence[list[int]]:
        """Indices of each batch."""
        return by_length([len(s.tokens) for s in self.segments], self.settings.batch, self.settings.seed, epoch)

    def items(self) -> int:
        """Tokens of an epoch."""
        return sum(len(s.tokens) for s in self.segments)

    def _inputs(self, sentences: Sequence[Tagged]) -> tuple[Tensor, Tensor, Any]:
        """Ids [T, B], lengths, and the spelling where the model reads it."""
        x, lengths = pad_symbols([self.words.encode(s.tokens) for s in sentences])
        return x, lengths, spell([s.tokens for s in sentences], self.characters) if self.characters else None

    def loss(self, batch: list[int]) -> tuple[Tensor, int]:
        """Mean nats a label, and of the intents."""
        sentences = [self.segments[i] for i in batch]
        x, lengths, spelling = self._inputs(sentences)
        if not self.python:
            x = torch.where(self.rare[x] & (torch.rand(x.shape) < RARE), self.words.unknown_id or 0, x)
        target, _ = pad_symbols([self.labels.encode(s.labels) for s in sentences])
        intents = None
        if self.format == "slots":
            intents = torch.tensor(self.intents.encode(s.intent or "" for s in sentences))
        return self.model.loss(x, target, lengths, spelling, intents), int(lengths.sum())

    def predict(self, sentences: Sequence[Tagged]) -> list[Tagged]:
        """The same tokens with the model's labels and intents."""
        found: dict[int, Tagged] = {}
        for batch in by_budget([len(s.tokens) for s in sentences], STEPS if self.python else STEPS // 16):
            chosen = [sentences[i] for i in batch]
            x, lengths, spelling = self._inputs(chosen)
            labels, intents = self.model.predict(x, lengths, spelling)
            for column, i in enumerate(batch):
                names = self.labels.decode(labels[: int(lengths[column]), column])
                intent = None if intents is None else self.intents.symbols[int(intents[column])]
                found[i] = Tagged(chosen[column].tokens, names, intent)
        return [found[i] for i in range(len(sentences))]

    def figure(self, wanted: Sequence[Tagged], got: Sequence[Tagged]) -> float:
        """The task's metric."""
        if self.metric == "entity F1":
            return metrics.entity_f1([s.labels for s in wanted], [s.labels for s in got])
        a, b = self._flat(wanted, got)
        return metrics.accuracy(a, b)

    def _flat(self, wanted: Sequence[Tagged], got: Sequence[Tagged]) -> tuple[list[str], list[str]]:
        """All labels in a row, of Python source those of characters that are not white space."""
        rows = [
            (a, b)
            for w, g in zip(wanted, got, strict=True)
            for token, a, b in zip(w.tokens, w.labels, g.labels, strict=True)
            if not self.python or not token.isspace()
        ]
        return [a for a, _ in rows], [b for _, b in rows]

    def validate(self) -> float:
        """The metric on the validation part."""
        return self.figure(self.parts.valid, self.predict(self.parts.valid))

    def test(self, folder: Path) -> dict[str, Any]:
        """The metric, the accuracy of each label, intents; confusion matrix."""
        wanted = self.parts.test
        got = self.predict(wanted)
        flat = self._flat(wanted, got)
        results: dict[str, Any] = {"metric": self.figure(wanted, got), "accuracy": metrics.accuracy(*flat)}
        names = [*self.labels.symbols, *sorted(set(flat[0]) - set(self.labels.symbols))]
        counts = metrics.confusion(*flat, names)
        results["by_label"] = {
            n: row[i] / sum(row) for i, (n, row) in enumerate(zip(names, counts, strict=True)) if any(row)
        }
        if len(names) <= PICTURE:
            results["confusion"] = {"labels": names, "counts": counts}
            plots.confusion_matrix(folder / "confusion.png", counts, names, f"{self.settings.cell}, test part")
        if self.format == "slots":
            results["intent_accuracy"] = metrics.accuracy([s.intent for s in wanted], [s.intent for s in got])
        return results

    def data(self) -> dict[str, Any]:
        """Sizes, and numbers that depend on all tokens and labels."""
        checksum = 0
        for i, s in enumerate(self.segments):
            total = sum(self.words.encode(s.tokens)) + sum(self.labels.encode(s.labels))
            checksum += (i % 8191 + 1) * total
        tokens = {
            f"{part}_tokens": sum(len(s.tokens) for s in getattr(self.parts, part)) for part in self.parts.sizes()
        }
        sentences = (s for part in self.parts.sizes() for s in getattr(self.parts, part))
        content = fingerprint(
            text for s in sentences for text in (*map("\0".join, (s.tokens, s.labels)), s.intent or "")
        )
        return {"format": self.format} | self.parts.sizes() | tokens | {"checksum": checksum, "content": content}

    def summary(self, results: Mapping[str, Any]) -> list[str]:
        """The figures."""
        lines = [f"    {name:16} {100 * share:6.2f}%" for name, share in list(results["by_label"].items())[:20]]
        if "intent_accuracy" in results:
            lines.append(f"test: {results['intent_accuracy']:.4f} accuracy of intents")
        return ["accuracy of each label:", *lines, f"test: {results['metric']:.4f} {self.metric}"]
