# SPDX-License-Identifier: Apache-2.0
"""What must be reached, as data, and which of it a run reaches. Rows: report.py."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from math import exp, log
from typing import Any

from .cases import MEASURED, MODES

Row = dict[str, Any]


@dataclass(frozen=True)
class Target:
    """`measure` of every row that `where` describes must be at least `least`, or at most `most`.

    where: values of the row's fields; a tuple: any of them; at_least_B, at_least_H: lower bounds. or_else: another
    (measure, least) that does as well. together: the geometric mean of the rows counts, not each. isa: only there
    ("avx512"), or only elsewhere ("!avx512").
    """

    what: str
    measure: str
    least: float | None = None
    most: float | None = None
    where: dict[str, Any] = field(default_factory=dict)
    or_else: tuple[str, float] | None = None
    together: bool = False
    isa: str = ""

    def applies(self, isa: str) -> bool:
        """Whether it is asked of this instruction set."""
        return not self.isa or (isa == self.isa.removeprefix("!")) != self.isa.startswith("!")

    def concerns(self, row: Row, isa: str) -> bool:
        """Whether the row is one of those."""
        if not self.applies(isa):
            return False
        for name, wanted in self.where.items():
            if name.startswith("at_least_"):
                if row[name.removeprefix("at_least_")] < wanted:
                    return False
            elif row.get(name) not in (wanted if isinstance(wanted, tuple) else (wanted,)):
                return False
        return True

    def reached_by(self, value: float) -> bool:
        """Whether this value of the measure does."""
        return value >= self.least if self.least is not None else value <= (self.most or 0.0)

    def met(self, row: Row) -> bool | None:
        """Whether the row alone reaches it; None: not measured."""
        value = row.get(self.measure)
        if self.or_else is not None:
            other = row.get(self.or_else[0])
            if other is not None and other >= self.or_else[1]:
                return True
        return None if value is None else self.reached_by(value)

    @property
    def needed(self) -> str:
        """In words: at least 1.3."""
        sign, bound = ("at least", self.least) if self.least is not None else ("at most", self.most)
        other = "" if self.or_else is None else f", or {self.or_else[0]} at least {self.or_else[1]:g}"
        return f"{self.measure} {sign} {bound:g}{other}"


_ONE = {"layers": 1, "directions": 1}  # a single layer in one direction
_INFERENCE = {"mode": "inference", **_ONE}
_TRAINING = {"mode": "training", **_ONE}
_LARGE = {"at_least_B": 32, "at_least_H": 256}
_LONG = {"mode": "recomputation", "cell": "lstm", "T": 20000}

# measures: fields of report.py's rows. ratio: torch.nn's median / ours; ratio_best: the best rival's.
TARGETS: tuple[Target, ...] = (
    Target("inference, each, against the best rival", "ratio_best", 1.0, where=_INFERENCE, or_else=("of_limit", 0.88)),
    Target("inference, against the best rival", "ratio_best", 1.3, where=_INFERENCE, together=True, isa="avx512"),
    Target("inference, against the best rival", "ratio_best", 1.45, where=_INFERENCE, together=True, isa="!avx512"),
    Target("inference, against torch.nn", "ratio", 2.2, where=_INFERENCE, together=True),
    Target("training, each, against torch.nn", "ratio", 1.05, where=_TRAINING),
    *(
        Target(f"training, {cell}, against torch.nn", "ratio", least, where={**_TRAINING, "cell": cell}, together=True)
        for cell, least in (("lstm", 1.6), ("gru", 3.0), ("rnn_tanh", 3.0))
    ),
    Target("B=1, the recurrence alone, of the read bandwidth", "of_bandwidth", 0.7, where={**_INFERENCE, "B": 1}),
    Target("B>=32, H>=256, inference, of the FMA peak", "of_peak", 0.8, where={**_INFERENCE, **_LARGE}),
    Target("B>=32, H>=256, training, of the FMA peak", "of_peak", 0.65, where={**_TRAINING, **_LARGE}),
    Target("LSTM step, of 2 x (bytes / bandwidth) + 0.15 x LSTMCell's call", "of_budget", most=1.0,
           where={"mode": "streaming", "cell": "lstm"}),
    *(
        Target(f"{cell.upper()} step, H={H}, against torch.nn.{cell.upper()}", "ratio", least,
               where={"mode": "streaming", "cell": cell, "H": H})
        for cell, bounds in (("lstm", (12.0, 20.0, 20.0)), ("gru", (4.0, 3.0, 1.2)))
        for H, least in zip((128, 256, 512), bounds, strict=True)
    ),
    Target("2 layers, both directions, B=1, against torch.nn", "ratio", 1.8, where={"directions": 2, "B": 1}),
    Target("2 layers, both directions, B=32, GRU, against torch.nn", "ratio", 1.3,
           where={"directions": 2, "B": 32, "cell": "gru"}),
    Target("2 layers, both directions, B=32, LSTM, against torch.nn", "ratio", 1.1,
           where={"directions": 2, "B": 32, "cell": "lstm"}, isa="avx512"),
    Target("2 layers, both directions, B=32, LSTM, against torch.nn", "ratio", 1.3,
           where={"directions": 2, "B": 32, "cell": "lstm"}, isa="!avx512"),
    *(
        Target(f"call overhead, {name}, of torch.nn.LSTMCell's", f"overhead_{name}", most=most,
               where={"mode": "overhead", "cell": "lstm"})
        for name, most in (("rnnfast", 0.7), ("rnnfast_cell", 0.5), ("stream", 0.15))
    ),
    Target("memory of training, LSTM and GRU, of torch.nn's", "bytes_ratio", most=0.6,
           where={"mode": "memory", "cell": ("lstm", "gru")}),
    Target("memory of training, RNN, of torch.nn's", "bytes_ratio", most=1.0,
           where={"mode": "memory", "cell": "rnn_tanh"}),
    Target("recomputation, LSTM, T=20,000: memory, of torch.nn's", "bytes_ratio", most=0.05, where=_LONG),
    Target("recomputation, LSTM, T=20,000: time, of our own without", "time_ratio", most=1.5, where=_LONG),
)  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    """A target and what a run has reached. met: None where nothing of it was measured."""

    what: str
    needed: str
    got: str
    met: bool | None
    rows: int  # that were measured
    misses: tuple[str, ...]  # the rows that miss it, where each counts

    def __str__(self) -> str:
        verdict = {True: "met", False: "MISSED", None: "not measured"}[self.met]
        missed = f"; short: {', '.join(self.misses)}" if self.misses else ""
        return f"{verdict:12} {self.what}: {self.needed}; {self.got}{missed}"


def geometric_mean(values: Iterable[float]) -> float:
    """Of positive numbers."""
    logs = [log(value) for value in values]
    return exp(sum(logs) / len(logs))


def outcomes(rows: list[Row], isa: str, name: Callable[[Row], str]) -> list[Outcome]:
    """Every target that applies to this kind of machine. name: how a row is called among the misses."""
    return [_outcome(t, rows, isa, name) for t in TARGETS if t.applies(isa)]


def _outcome(target: Target, rows: list[Row], isa: str, name: Callable[[Row], str]) -> Outcome:
    found = [row for row in rows if target.concerns(row, isa)]
    measured = [row for row in found if target.met(row) is not None]
    if not measured:
        return Outcome(target.what, target.needed, "no row", None, 0, ())
    values = [row[target.measure] for row in measured if row.get(target.measure) is not None]
    if target.together:
        mean = geometric_mean(values)
        met = target.reached_by(mean)
        return Outcome(target.what, target.needed, f"geometric mean {mean:.2f} of {len(values)}", met, len(values), ())
    misses = tuple(name(row) for row in measured if not target.met(row))
    got = f"{len(measured) - len(misses)} of {len(measured)}"
    if values:
        got += f", from {min(values):.2f} to {max(values):.2f}"
    return Outcome(target.what, target.needed, got, not misses, len(measured), misses)


def missed(row: Row, isa: str) -> list[str]:
    """The targets that this row alone misses."""
    return [t.what for t in TARGETS if not t.together and t.concerns(row, isa) and t.met(row) is False]


def means(rows: list[Row]) -> list[Row]:
    """Geometric means of the ratios by mode, stack and cell, over the cases where the rival was measured."""
    found = []
    for mode in MODES:
        for directions in (1, 2):
            for cell in (*MEASURED, None):
                some = [
                    r for r in rows
                    if r["mode"] == mode and r["directions"] == directions and cell in (None, r["cell"])
                ]  # fmt: skip
                values: dict[str, list[float]] = {
                    key: [r[key] for r in some if r.get(key) is not None]
                    for key in ("ratio", "ratio_onnxruntime", "ratio_openvino", "ratio_best")
                }
                if any(values.values()):
                    row: Row = {"mode": mode, "directions": directions, "cell": cell, "cases": len(some)}
                    found.append(row | {k: geometric_mean(v) if v else None for k, v in values.items()})
    return found
