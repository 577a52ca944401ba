# SPDX-License-Identifier: Apache-2.0
"""The table of cases: every cell and option crossed with every other, in pairs by default, in full behind a marker."""

import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

CELLS = ("lstm", "gru", "rnn_tanh", "rnn_relu", "rnn_sigmoid")
WITH_CELL_STATE = ("lstm",)  # cells that carry c besides h; only they take a projection
SIZES = (1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 64, 65)
HALF = ("float16", "bfloat16")
SIZED = ("T", "B", "I", "H", "proj")


@dataclass(frozen=True)
class Case:
    """One call of a layer."""

    cell: str
    T: int
    B: int
    I: int
    H: int
    proj: int = 0  # size of the projection, 0 for none
    dtype: str = "float32"
    bias: bool = True
    bidirectional: bool = False
    packed: bool = False
    h0: bool = True
    c0: bool = False
    layout: str = "contiguous"  # of x: contiguous, batch_first, expanded, strided
    outputs: str = "yhc"  # which outputs have a gradient: any of y, h, c
    needs: str = "all"  # which inputs ask for one: all, weights, x, states

    def __str__(self) -> str:
        return "-".join(str(getattr(self, f.name)) for f in fields(self))

    @property
    def P(self) -> int:
        """Features of h."""
        return self.proj or self.H

    @property
    def D(self) -> int:
        return 2 if self.bidirectional else 1

    @property
    def has_cell(self) -> bool:
        return self.cell in WITH_CELL_STATE


LEVELS: dict[str, tuple[Any, ...]] = {
    "cell": CELLS,
    "T": (1, 2, 3, 9, 17),
    "B": (0, *SIZES),
    "I": SIZES,
    "H": SIZES,
    "proj": (0, 1, 3, 7, 8, 17),
    "dtype": ("float32", "float64", *HALF),
    "bias": (True, False),
    "bidirectional": (False, True),
    "packed": (False, True),
    "h0": (True, False),
    "c0": (False, True),
    "layout": ("contiguous", "batch_first", "expanded", "strided"),
    "outputs": ("yhc", "yh", "y", "h", "c", "yc", "hc"),
    "needs": ("all", "weights", "x", "states"),
}

# For the CUDA kernels on the emulator (tests/test_cuda.py): small, but of several blocks with tails.
CUDA_LEVELS: dict[str, tuple[Any, ...]] = LEVELS | {
    "T": (1, 2, 3, 6),
    "B": (0, 1, 2, 3, 7, 8, 9),
    "I": (1, 3, 8, 17),
    "H": (1, 2, 7, 16, 33, 64, 70),
    "proj": (0, 1, 3, 8, 17),
}

Row = dict[str, Any]
Levels = dict[str, tuple[Any, ...]]


def may_stand(row: Row) -> bool:
    """Whether these values of some columns may stand together. Each rule is about two columns."""
    plain = row.get("cell", "lstm") not in WITH_CELL_STATE
    if plain and (row.get("proj") or row.get("c0") or "c" in row.get("outputs", "")):
        return False
    if row.get("proj", 0) >= row.get("H", 1 << 30):
        return False
    return not (row.get("packed") and (row.get("B") == 0 or row.get("layout") in ("batch_first", "expanded")))


def complete(row: Row, rng: random.Random, levels: Levels = LEVELS) -> Row | None:
    """The row with the columns that it lacks drawn at random; None where the draw runs into a rule."""
    for name in sorted(levels, key=lambda _: rng.random()):
        if name not in row:
            values = [v for v in levels[name] if may_stand(row | {name: v})]
            if not values:
                return None
            row = row | {name: rng.choice(values)}
    return row if may_stand(row) else None


def _together(row: Row) -> set[tuple[Any, ...]]:
    """What a row covers: its pairs of values; with options among them, for its cell by itself."""
    cell = row["cell"]
    found: set[tuple[Any, ...]] = set()
    for a, b in itertools.combinations(LEVELS, 2):
        pair = (a, row[a], b, row[b])
        found.add(pair if a == "cell" or (a in SIZED and b in SIZED) else (*pair, "cell", cell))
    return found


def pairwise(seed: int = 0, levels: Levels = LEVELS) -> Iterator[Case]:
    """Rows that cover, greedily, whatever may stand together: every two sizes, and for each cell every two values of
    which at least one is an option."""
    rng = random.Random(seed)
    left: dict[tuple[Any, ...], None] = {}  # not yet covered; a dict, as it keeps its order
    for a, b in itertools.combinations(levels, 2):
        for x, y, cell in itertools.product(levels[a], levels[b], CELLS):
            values = {"cell": cell} | {a: x, b: y}
            if a == "cell" or (a in SIZED and b in SIZED):
                if may_stand({a: x, b: y}):
                    left[(a, x, b, y)] = None
            elif may_stand(values):
                left[(a, x, b, y, "cell", cell)] = None
    while left:
        best: tuple[Row, set[tuple[Any, ...]]] | None = None
        for item in rng.sample(list(left), min(12, len(left))):
            row = complete(dict(zip(item[::2], item[1::2], strict=True)), rng, levels)
            new = _together(row) & left.keys() if row else set()
            if row and (best is None or len(new) > len(best[1])):
                best = (row, new)
        if best:
            for item in best[1]:
                del left[item]
            yield Case(**best[0])


def full(limit: int, seed: int = 0, levels: Levels = LEVELS) -> Iterator[Case]:
    """`limit` rows of the whole crossing, without repetition in expectation."""
    rng = random.Random(seed)
    while limit > 0:
        row = complete({"cell": rng.choice(CELLS)}, rng, levels)
        if row:
            limit -= 1
            yield Case(**row)


PAIRWISE = list(pairwise())
CUDA_PAIRWISE = list(pairwise(levels=CUDA_LEVELS))
