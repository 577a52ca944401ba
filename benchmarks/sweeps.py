# SPDX-License-Identifier: Apache-2.0
"""How the cost of inference goes with T, B, H and the number of threads: short cases along one size at a time."""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch

from . import rivals, timing
from .cases import Case

BASE = (64, 16, 256, 256)  # T, B, I, H, where a sweep does not change them; I goes with H
SIZES: dict[str, tuple[int, ...]] = {
    "T": (1, 4, 16, 64, 256),
    "B": (1, 2, 4, 8, 16, 33, 64),  # 33: a tail
    "H": (64, 100, 128, 192, 256, 384, 512),
}
QUICK: dict[str, tuple[int, ...]] = {"T": (1, 16, 64), "B": (1, 4, 16), "H": (64, 100, 256)}
THREADS_CASES = ((100, 1, 256, 256), (64, 32, 256, 256))


@dataclass(frozen=True)
class Point:
    """One point of a sweep: `along` is "T", "B", "H" or "threads"."""

    along: str
    case: Case
    threads: int

    @property
    def value(self) -> int:
        """Where it stands on the axis."""
        return self.threads if self.along == "threads" else int(getattr(self.case, self.along))

    def __str__(self) -> str:
        return f"sweep of {self.along}: {self.case}, {self.threads} threads"


def points(cell: str, threads: int, quick: bool) -> list[Point]:
    """All points of one cell. Threads: powers of two and the number asked for."""
    base = Case(cell, "inference", *BASE)
    found = []
    for along, values in (QUICK if quick else SIZES).items():
        for value in values:
            case = replace(base, H=value, I=value) if along == "H" else _with(base, along, value)
            found.append(Point(along, case, threads))
    counts = sorted({threads, *(2**i for i in range(threads.bit_length()) if 2**i <= threads)})
    for shape in THREADS_CASES[-1:] if quick else THREADS_CASES:
        found += [Point("threads", Case(cell, "inference", *shape), count) for count in counts]
    return found


def _with(case: Case, along: str, value: int) -> Case:
    return replace(case, T=value) if along == "T" else replace(case, B=value)


def measure(point: Point, chosen: Collection[str], seconds: float, least: int) -> dict[str, Any]:
    """One point's times, milliseconds: {"along", "value", "cell", "T", ..., "ms": {name: median}, "left_out"}."""
    before = torch.get_num_threads()
    torch.set_num_threads(point.threads)
    try:
        found, left_out = rivals.verified(point.case, point.threads, chosen)
        timings = timing.race({name: contender.run for name, contender in found.items()}, seconds, least)
    finally:
        torch.set_num_threads(before)
    case = point.case
    sizes = {"cell": case.cell, "T": case.T, "B": case.B, "I": case.I, "H": case.H, "threads": point.threads}
    medians = {name: t.median for name, t in timings.items()}
    return {"along": point.along, "value": point.value, **sizes, "ms": medians, "left_out": left_out}


Sweep = list[dict[str, Any]]


def grouped(sweeps: Sweep, cell: str) -> Iterator[tuple[str, str, Sweep]]:
    """(along, what stays the same, its points in order) of one cell."""
    keys: Callable[[dict[str, Any]], str] = lambda s: ", ".join(  # noqa: E731
        f"{k}={s[k]}" for k in ("T", "B", "H", "threads") if k != s["along"]
    )
    curves: dict[tuple[str, str], Sweep] = {}
    for sweep in sweeps:
        if sweep["cell"] == cell:
            curves.setdefault((sweep["along"], keys(sweep)), []).append(sweep)
    for (along, same), found in curves.items():
        yield along, same, sorted(found, key=lambda s: int(s["value"]))
