# SPDX-License-Identifier: Apache-2.0
"""The table of cases: every option crossed with every other, in pairs by default, in full behind a marker."""

import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass, fields

SIZES = (1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 64, 65)


@dataclass(frozen=True)
class Case:
    """One call of the layer."""

    T: int
    B: int
    I: int
    H: int
    dtype: str
    bias: bool
    bidirectional: bool
    packed: bool
    h0: bool
    c0: bool
    layout: str  # of x: contiguous, batch_first, expanded, strided
    outputs: str  # which outputs have a gradient: any of y, h, c
    needs: str  # which inputs ask for one: all, weights, x, states

    def __str__(self) -> str:
        return "-".join(str(getattr(self, f.name)) for f in fields(self))


LEVELS: dict[str, tuple] = {
    "T": (1, 2, 3, 9, 17),
    "B": (0, *SIZES),
    "I": SIZES,
    "H": SIZES,
    "dtype": ("float32", "float64"),
    "bias": (True, False),
    "bidirectional": (False, True),
    "packed": (False, True),
    "h0": (True, False),
    "c0": (True, False),
    "layout": ("contiguous", "batch_first", "expanded", "strided"),
    "outputs": ("yhc", "y", "h", "c", "yc", "hc"),
    "needs": ("all", "weights", "x", "states"),
}


def _valid(row: dict) -> bool:
    return not (row["packed"] and (row["B"] == 0 or row["layout"] in ("batch_first", "expanded")))


def pairwise(levels: dict[str, tuple], seed: int = 0) -> Iterator[Case]:
    """Rows such that every pair of values of two columns that may stand together does so at least once (greedy)."""
    rng = random.Random(seed)
    names = list(levels)
    open_pairs = {((a, x), (b, y)) for a, b in itertools.combinations(names, 2) for x in levels[a] for y in levels[b]}
    misses = 0
    while open_pairs and misses < 50:
        best, best_new = None, 0
        seeds = sorted(rng.sample(sorted(open_pairs, key=repr), min(8, len(open_pairs))), key=repr)
        for fixed in seeds:
            row = {n: rng.choice(levels[n]) for n in names} | dict(fixed)
            if not _valid(row):
                continue
            new = sum(((a, row[a]), (b, row[b])) in open_pairs for a, b in itertools.combinations(names, 2))
            if new > best_new:
                best, best_new = row, new
        if best is None:
            misses += 1
            continue
        misses = 0
        open_pairs -= {((a, best[a]), (b, best[b])) for a, b in itertools.combinations(names, 2)}
        yield Case(**best)


def full(limit: int, seed: int = 0) -> Iterator[Case]:
    """`limit` rows of the whole crossing, without repetition in expectation."""
    rng = random.Random(seed)
    while limit > 0:
        row = {n: rng.choice(v) for n, v in LEVELS.items()}
        if _valid(row):
            limit -= 1
            yield Case(**row)


PAIRWISE = list(pairwise(LEVELS))
