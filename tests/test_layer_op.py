# SPDX-License-Identifier: Apache-2.0
"""Each cell's op against the NumPy float64 reference, within twice torch's own error: every ISA, 1 and 2 threads."""

import itertools

import pytest
import torch

from rnnfast.ops import LAYERS
from tests.cases import CELLS, HALF, PAIRWISE, SIZED, Case, full
from tests.helpers import ISAS, assert_bitwise_equal, assert_within_bound, machine
from tests.problem import problem

pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")

OUTPUTS = ("y", "h_n", "c_n")


def check(case: Case, isa: str, threads: int) -> None:
    """Training and inference."""
    p = problem(case)
    with machine(isa, threads):
        got = p.run(p.ours)
        with torch.no_grad():
            inference = p.ours(p.x, p.h0, p.c0, p.weights)
    assert got.keys() == p.torch.keys()
    where = f"{p.where}, isa {isa}, {threads} threads"
    for name, tensor in got.items():
        assert tensor.dtype == p.x.dtype, f"{where}: {name}"
        assert_within_bound(name, tensor, p.torch_results(name), p.reference[name], where)
    for name, tensor in zip(OUTPUTS, inference, strict=True):
        assert_within_bound(f"inference {name}", tensor, p.torch_results(name), p.reference[name], where)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("case", PAIRWISE, ids=str)
def test_pairwise(case: Case, isa: str, threads: int) -> None:
    check(case, isa, threads)


@pytest.mark.full
@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("seed", range(20))
def test_full_crossing(seed: int, isa: str) -> None:
    for case in full(300, seed):
        for threads in (1, 2):
            check(case, isa, threads)
        problem.cache_clear()


BOUNDARIES = {  # T, B, I, H
    "many steps": (600, 1, 5, 7),
    "chunks of steps": (260, 4, 20, 24),
    "blocks of depth": (40, 5, 257, 130),
    "rows by threads": (3, 33, 300, 100),
    "more rows than a chunk": (5, 300, 9, 10),
    "few rows": (2, 2, 65, 70),
    "whole tiles": (5, 24, 16, 48),
    "wide input": (4, 70, 520, 8),
    "one unit": (270, 5, 9, 1),
}


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(
    ("bidirectional", "packed"),
    [(False, False), (False, True), (True, True)],
    ids=["forward-dense", "forward-packed", "both-packed"],
)
@pytest.mark.parametrize("sizes", BOUNDARIES.values(), ids=BOUNDARIES)
@pytest.mark.parametrize("cell", [*CELLS, "projection"])
def test_blocking_boundaries(
    cell: str, sizes: tuple[int, int, int, int], bidirectional: bool, packed: bool, isa: str
) -> None:
    """Sizes at which K blocks, chunks of steps, forward and backward, and the decomposition by rows take effect.

    Two directions take one thread each; one direction is shared by both.
    """
    proj = 0
    if cell == "projection":
        cell, proj = "lstm", max(1, sizes[3] * 2 // 3)
    case = Case(cell, *sizes, proj=proj, bidirectional=bidirectional, packed=packed, c0=cell == "lstm")
    for threads in (1, 2):
        check(case, isa, threads)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(("H", "proj"), [(9, 9), (5, 17), (1, 1)])
def test_projection_that_does_not_narrow(H: int, proj: int, isa: str) -> None:
    """torch takes P < H only; the op recognises a projection by the count of weights, whatever its size."""
    check(Case("lstm", 4, 3, 7, H, proj, bidirectional=True, packed=True, c0=True), isa, 2)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("cell", CELLS)
def test_half_is_float_inside(cell: str, dtype: str, isa: str) -> None:
    """Half precision in and out, float32 between: bit for bit what float32 gives on the same numbers, rounded once."""
    c0 = cell == "lstm"
    p = problem(Case(cell, 9, 5, 17, 31, 7 if c0 else 0, dtype, bidirectional=True, c0=c0, needs="weights"))

    def widened(x, h0, c0, weights):
        states = [None if s is None else s.float() for s in (h0, c0)]
        return [out.to(p.x.dtype) for out in p.ours(x.float(), *states, [w.float() for w in weights])]

    with machine(isa):
        got, expected = p.run(p.ours), p.run(widened)
        with torch.no_grad():
            got |= dict(zip(("in y", "in h", "in c"), p.ours(p.x, p.h0, p.c0, p.weights), strict=True))
            expected |= dict(zip(("in y", "in h", "in c"), widened(p.x, p.h0, p.c0, p.weights), strict=True))
    for name in expected:
        assert_bitwise_equal(name, got[name], expected[name], f"{p.where}, isa {isa}")


def test_the_bound_can_fail() -> None:
    """A wrong result is caught: one element off by a thousandth."""
    p = problem(next(c for c in PAIRWISE if c.dtype == "float32" and c.B > 1 and c.T > 1))
    wrong = p.torch["y"].detach().clone()
    wrong.view(-1)[-1] += 1e-3
    with pytest.raises(AssertionError, match="seed .*first at"):
        assert_within_bound("y", wrong, p.torch_results("y"), p.reference["y"], p.where)


@pytest.mark.parametrize("cell", CELLS)
def test_a_wrong_op_is_noticed(cell: str) -> None:
    """The check itself fails where one bias of the recurrence is left out, or one gate's rows change places."""
    p = problem(Case(cell, 9, 7, 8, 17))
    gates = p.weights[0].shape[0] // 17

    def no_bias(x, h0, c0, weights):
        return p.ours(x, h0, c0, [*weights[:3], weights[3] * 0])

    def rolled(x, h0, c0, weights):
        return p.ours(x, h0, c0, [weights[0].roll(17 if gates > 1 else 1, 0), *weights[1:]])

    for wrong in (no_bias, rolled):
        results = p.run(wrong)
        for name in ("y", "h_n", "grad x", "grad weight 1"):
            with pytest.raises(AssertionError, match="beyond the bound"):
                assert_within_bound(name, results[name], p.torch_results(name), p.reference[name], p.where)


def test_pairwise_really_covers() -> None:
    """Two sizes meet in every pair of values; for each cell, so do any two options, and a size and an option."""

    def seen(cases: list[Case], a: str, b: str) -> set[tuple]:
        return {(getattr(c, a), getattr(c, b)) for c in cases}

    for a, b in itertools.combinations(SIZED[:4], 2):
        rows = seen(PAIRWISE, a, b)
        assert len(rows) == len({x for x, _ in rows}) * len({y for _, y in rows}), (a, b)
    options = ("dtype", "bias", "bidirectional", "h0", "outputs", "needs")
    for cell in CELLS:
        mine = [c for c in PAIRWISE if c.cell == cell]
        for a, b in [*itertools.combinations(options, 2), *itertools.product(SIZED[:4], options)]:
            rows = seen(mine, a, b)
            assert len(rows) == len({x for x, _ in rows}) * len({y for _, y in rows}), (cell, a, b)
        assert {c.H for c in mine} == {c.I for c in mine} == {c.B for c in mine} - {0}


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("packed", [False, True], ids=["dense", "packed"])
@pytest.mark.parametrize("cell", CELLS)
def test_same_bits_twice(cell: str, packed: bool, isa: str, threads: int) -> None:
    proj = 33 if cell == "lstm" and packed else 0
    case = Case(cell, 17, 31, 17, 65, proj, bidirectional=True, packed=packed, c0=cell == "lstm")
    p = problem(case)
    with machine(isa, threads):
        first, second = p.run(p.ours), p.run(p.ours)
    for name in first:
        assert_bitwise_equal(name, first[name], second[name], f"{p.where}, {isa}, {threads} threads")


@pytest.mark.parametrize("cell", CELLS)
def test_shapes(cell: str) -> None:
    """What the contract says of outputs and of what is saved, with and without `save`."""
    p = problem(Case(cell, 3, 2, 4, 5, bidirectional=True))
    S = {"lstm": 4, "gru": 4}.get(cell, 0)
    for save in (False, True):
        with torch.no_grad():
            y, h_n, c_n, saved, cells = LAYERS[cell](p.x, None, None, p.weights, None, True, True, save)
        assert y.shape == (3, 2, 10)
        assert h_n.shape == (2, 2, 5)
        assert c_n.shape == ((2, 2, 5) if cell == "lstm" else (0,))
        assert saved.shape == ((2, 6, S * 5) if save and S else (0,))
        assert cells.shape == ((2, 6, 5) if save and cell == "lstm" else (0,))


@pytest.mark.parametrize("check", [False, True], ids=["unchecked", "checked"])
@pytest.mark.parametrize("save", [False, True], ids=["inference", "training"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("cell", CELLS)
def test_outputs_share_no_storage(cell: str, dtype: str, save: bool, check: bool) -> None:
    """What torch asks of an op: an output is neither an input nor another output, empty ones included."""
    p = problem(Case(cell, 3, 2, 4, 5, 0, dtype, c0=cell == "lstm"))
    bptt = [0, 0, 0, int(check), 0, 0]
    with torch.no_grad():
        outputs = LAYERS[cell](p.x, p.h0, p.c0, p.weights, None, True, False, save, 0.0, bptt)
    storages = {t.untyped_storage()._cdata for t in (*outputs, p.x, p.h0, *p.weights)}
    assert len(storages) == len(outputs) + 2 + len(p.weights)
