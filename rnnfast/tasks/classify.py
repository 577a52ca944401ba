# SPDX-License-Identifier: Apache-2.0
"""`rnnfast train classify`: a class for each sequence, of real values or of symbols."""

import argparse
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from rnnfast.base import RNNBase
from rnnfast.diagnostics import gradient_flow
from rnnfast.models import SequenceClassifier
from rnnfast.models.vocabulary import Vocabulary
from rnnfast.runs import InputError
from rnnfast.tasks import metrics, plots
from rnnfast.tasks.arguments import add_files
from rnnfast.tasks.batches import by_length, in_order, pad_series, pad_symbols
from rnnfast.tasks.data.digits import digits
from rnnfast.tasks.data.files import listed, shown
from rnnfast.tasks.data.labelled_text import read_labelled_text
from rnnfast.tasks.data.split import Parts, from_files, stratified
from rnnfast.tasks.data.ts import read_ts
from rnnfast.tasks.settings import Settings, Task, fingerprint, initialiser

# Where to start; benchmarks/tasks.py chooses for each cell on the validation part. An IRNN diverges where others are at
# their best (Le et al. 2015).
RATES = {"rnn": 1e-3, "rnn_relu": 3e-4, "irnn": 1e-4, "lstm": 1e-2, "gru": 1e-2, "none": 5e-3}


@dataclass(frozen=True)
class Example:
    """A series [T, F], or symbols, and its class."""

    input: Any  # Tensor, or list[str]
    label: str


class ClassifyTask(Task):
    """Digits pixel by pixel by default; `.ts` files; text with labels."""

    name = "classify"
    metric = "accuracy"
    higher_is_better = True
    item = "sequence"
    defaults: ClassVar[Mapping[str, Any]] = {
        "hidden": 100, "layers": 1, "embedding": 64, "dropout": 0.1, "epochs": 80, "batch": 32, "patience": 80,
        "learning_rate": None, "bidirectional": False, "aggregation": None, "unit": "char", "min_count": 1,
    }  # fmt: skip

    @staticmethod
    def add_arguments(parser: argparse.ArgumentParser) -> None:
        """The task's own options."""
        add_files(parser, "FILE", "a .ts file, or text<TAB>label lines (default: scikit-learn's digits)")
        parser.add_argument("--unit", choices=("char", "word"), help="of text (default: char)")
        parser.add_argument("--min-count", type=int, metavar="N", help="rarer symbols are unknown ones (default: 1)")
        parser.add_argument("--aggregation", choices=("last", "mean", "sum", "max", "attention"),
                            help="over time (default: last; of --cell none: sum)")  # fmt: skip
        parser.add_argument("--bidirectional", action="store_const", const=True, help="also read from the end")

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.options = settings.options
        self.parts = self._read()
        first = self.parts.train[0].input
        self.series = isinstance(first, Tensor)
        self.labels = Vocabulary(sorted({e.label for e in self.parts.train}), padding=None, unknown=None)
        self._check()
        torch.manual_seed(settings.seed)
        o, extra = self.options, {"task": self.name, "unit": self.options["unit"]}
        sizes: dict[str, Any]
        if self.series:
            self.location, self.scale = self._measure()
            extra |= {"location": self.location.tolist(), "scale": self.scale.tolist()}
            sizes = {"features": first.shape[1]}
        else:
            texts = [e.input for e in self.parts.train]
            self.symbols = Vocabulary.build(texts, min_count=o["min_count"])
            sizes = {"symbols": len(self.symbols)}
        self.inputs = {part: [self._encode(e.input) for e in getattr(self.parts, part)] for part in self.parts.sizes()}
        self.targets = {
            part: torch.tensor(self.labels.encode(e.label for e in getattr(self.parts, part)))
            for part in self.parts.sizes()
        }
        self.model = SequenceClassifier(
            len(self.labels), **sizes, embedding=settings.embedding, hidden=settings.hidden, layers=settings.layers,
            dropout=settings.dropout, cell=settings.cell, backend=settings.backend, bidirectional=o["bidirectional"],
            aggregation=o["aggregation"], init=initialiser(settings.init, settings.cell),
        )  # fmt: skip
        self.model.vocabulary = {"labels": self.labels} | ({} if self.series else {"symbols": self.symbols})
        self.model.extra = extra

    def _read(self) -> Parts[Example]:
        o = self.options
        if not o.get("data") and not o.get("train"):
            if o.get("valid") or o.get("test"):
                raise InputError("--valid and --test: expected --train with them")
            inputs, labels = digits()
            found = [
                [Example(inputs[i], labels[i]) for i in part]
                for part in stratified(labels, (0.6, 0.2, 0.2), self.settings.seed)
            ]
            return Parts(found[0], found[1], found[2])
        return from_files(o, lambda path: read_examples(path, o["unit"]), seed=self.settings.seed)

    def _check(self) -> None:
        """One kind of input throughout, and no label that training has not seen."""
        names = {"valid": "validation part", "test": self.parts.test_source or "test part"}
        for part in ("train", "valid", "test"):
            for number, example in enumerate(getattr(self.parts, part), 1):
                x = example.input
                if isinstance(x, Tensor) != self.series or (
                    self.series and x.shape[1] != self.parts.train[0].input.shape[1]
                ):
                    raise InputError(
                        f"{part} part, sequence {number}: expected one like those of the training part, got another"
                    )
                if example.label not in self.labels:
                    raise InputError(
                        f"{names[part]}, sequence {number}: expected a label of the training part "
                        f"({listed(self.labels.symbols)}), got {shown(example.label)}"
                    )

    def _measure(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of each feature in the training part; the digits stay as they are."""
        features = self.parts.train[0].input.shape[1]
        if not self.options.get("data") and not self.options.get("train"):
            return torch.zeros(features), torch.ones(features)
        rows = torch.cat([e.input for e in self.parts.train])
        deviation = rows.std(0, correction=0)
        return rows.mean(0), torch.where(deviation > 0, deviation, torch.ones(features))

    def _encode(self, x: Any) -> Any:
        return (x - self.location) / self.scale if self.series else self.symbols.encode(x)

    def _pad(self, part: str, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        found = [self.inputs[part][i] for i in indices]
        return pad_series(found) if self.series else pad_symbols(found)

    def plan(self, epoch: int) -> Sequence[list[int]]:
        """Indices of each batch."""
        return by_length([len(x) for x in self.inputs["train"]], self.settings.batch, self.settings.seed, epoch)

    def items(self) -> int:
        """Sequences of an epoch."""
        return len(self.parts.train)

    def loss(self, batch: list[int]) -> tuple[Tensor, int]:
        """Mean cross-entropy."""
        x, lengths = self._pad("train", batch)
        return self.model.loss(x, self.targets["train"][batch], lengths), len(batch)

    def predict(self, part: str) -> list[str]:
        """The model's classes of a part."""
        got = torch.zeros(len(self.inputs[part]), dtype=torch.int64)
        for batch in in_order([len(x) for x in self.inputs[part]], 128):
            got[batch] = self.model.predict(*self._pad(part, batch))[0]
        return self.labels.decode(got)

    def validate(self) -> float:
        """Accuracy on the validation part."""
        return metrics.accuracy([e.label for e in self.parts.valid], self.predict("valid"))

    def test(self, folder: Path) -> dict[str, Any]:
        """Accuracy, confusion matrix, and for series how much of the gradient reaches each step."""
        wanted, got = [e.label for e in self.parts.test], self.predict("test")
        counts = metrics.confusion(wanted, got, self.labels.symbols)
        plots.confusion_matrix(
            folder / "confusion.png", counts, self.labels.symbols, f"{self.settings.cell}, test part"
        )
        results: dict[str, Any] = {"metric": metrics.accuracy(wanted, got), "confusion": counts}
        if self.series:
            results["gradient_over_time"] = self._gradient()
            title = f"{self.settings.cell}: how much of the loss's gradient reaches step t"
            plots.gradient_over_time(folder / "gradient.png", results["gradient_over_time"], title)
        return results

    def _gradient(self) -> dict[str, list[float]]:
        """Norms over the steps, mean over up to 64 test samples of the most common length, L a sample's own loss.

        Of dL/dh_t, a curve for each layer and direction, where rnnfast's kernels record it; else of dL/dx_t.
        """
        lengths = [len(x) for x in self.inputs["test"]]
        usual = max(set(lengths), key=lengths.count)
        chosen = [i for i, n in enumerate(lengths) if n == usual][:64]
        x = self._pad("test", chosen)[0].requires_grad_()
        rnn = self.model.rnn
        with torch.enable_grad(), gradient_flow(rnn) if isinstance(rnn, RNNBase) else nullcontext() as flow:
            loss = self.model.loss(x, self.targets["test"][chosen]) * len(chosen)
            (gradient,) = torch.autograd.grad(loss, x)
        if flow is None:
            return {"dL/dx": gradient.norm(dim=-1).mean(-1).tolist()}
        return {
            f"dL/dh, layer {layer}{', reverse' if direction else ''}": curve.tolist()
            for layer, directions in enumerate(flow.dh)
            for direction, curve in enumerate(directions)
        }

    def data(self) -> dict[str, Any]:
        """Sizes, labels, and numbers that depend on all sequences and targets."""
        checksum = sum((i % 8191 + 1) * len(x) for i, x in enumerate(self.inputs["train"]))
        order = torch.arange(len(self.targets["train"])) % 8191 + 1
        checksum += int((self.targets["train"] * order).sum())
        examples = [e for part in self.parts.sizes() for e in getattr(self.parts, part)]
        inputs = [e.input if self.series else "\0".join(e.input) for e in examples]
        content = fingerprint([*inputs, *(e.label for e in examples)])
        return self.parts.sizes() | {"labels": list(self.labels.symbols), "checksum": checksum, "content": content}

    def summary(self, results: Mapping[str, Any]) -> list[str]:
        """Accuracy."""
        return [f"test: {results['metric']:.4f} accuracy ({len(self.parts.test)} sequences)"]


def read_examples(path: Path, unit: str) -> list[Example]:
    """A `.ts` file's series, or any other file's text<TAB>label lines."""
    if path.suffix.lower() == ".ts":
        found = read_ts(path)
        return [Example(x, label) for x, label in zip(found.series, found.labels, strict=True)]
    pairs = read_labelled_text(path)
    return [Example(text.split() if unit == "word" else list(text), label) for text, label in pairs]
