# SPDX-License-Identifier: Apache-2.0
"""Clipping inside BPTT and truncation, at the level of the ops: the NumPy reference, the loop with hooks, finite
differences; every cell, instruction set and thread count; packed, both directions, projection, half precision."""

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from rnnfast.ops import LAYERS, LAYERS_BACKWARD
from tests import controlled
from tests.arguments import arguments
from tests.cases import CELLS, HALF, Case
from tests.helpers import ISAS, assert_bitwise_equal, assert_within_bound, machine
from tests.problem import Problem, problem
from tests.reference import Control, layer_backward

pytestmark = pytest.mark.usefixtures("one_thread")

# A limit that acts on most steps, one that acts on few; cuts at every step, at some, beyond the sequence.
CONTROLS = [
    Control("value", 0.05),
    Control("norm", 0.5),
    Control("norm", 3.0, 4),
    Control("value", 0.8, 1),
    Control(steps=1),
    Control(steps=3),
    Control(steps=100),
]
KINDS = {None: 0, "value": 1, "norm": 2}
GRADS = ("grad x", "grad h0", "grad c0")


def codes(control: Control, layer: int = 0, check: bool = False, recorder: int = 0) -> tuple[float, list[int]]:
    """The op's arguments `limit` and `bptt`."""
    return control.limit, [KINDS[control.clip], control.steps or 0, 0, int(check), layer, recorder]


def reference(p: Problem, control: Control) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Every gradient by NumPy, and the norms [D, N, 2]."""
    case, D = p.case, p.case.D
    gy, gh, gc = (g.double().numpy() if p.weighed(n) else np.zeros(g.shape) for n, g in p.grads.items())
    gc = gc if case.has_cell else np.zeros((D, 0))
    back = layer_backward(
        case.cell, gy.reshape(-1, D * case.P), gh, gc, p._x64, p._w64, p._layer, p.batch_sizes, control
    )
    found = {
        "grad x": np.sum([b.x for b in back], axis=0).reshape(p.x.shape),
        "grad h0": np.stack([b.h0 for b in back]),
        "grad c0": np.stack([b.c0 for b in back]),
    }
    for d, b in enumerate(back):
        found |= {f"grad weight {d * p.each + i}": part for i, part in enumerate(p._flat(b))}
    return found, np.stack([b.norms for b in back])


def ours(p: Problem, control: Control, **more: Any) -> Any:
    def layer(x: Tensor, h0: Tensor | None, c0: Tensor | None, weights: list[Tensor]) -> Any:
        options = (p.sizes, p.case.bias, p.case.bidirectional, False, *codes(control, **more))
        return LAYERS[p.case.cell](x, h0, c0, weights, *options)[:3]

    return layer


def loop(p: Problem, control: Control, seen: controlled.Seen | None = None) -> Any:
    def layer(x: Tensor, h0: Tensor | None, c0: Tensor | None, weights: list[Tensor]) -> Any:
        case = p.case
        return controlled.layer(case.cell, x, h0, c0, weights, p.sizes, case.bias, case.bidirectional, control, seen)

    return layer


def loop_in_orders(p: Problem, control: Control) -> list[dict[str, Tensor]]:
    """The loop's results, with the features of x as they are and the other way round: the measure of rounding."""

    def flipped(x: Tensor, h0: Tensor | None, c0: Tensor | None, weights: list[Tensor]) -> Any:
        turned = [w.flip(1) if i % p.each == 0 else w for i, w in enumerate(weights)]
        return loop(p, control)(x.flip(-1), h0, c0, turned)

    return [p.run(loop(p, control)), p.run(flipped)]


CASES = [
    Case(cell, 11, 4, 5, 19, dtype=dtype, bidirectional=both, packed=packed, c0=cell == "lstm", proj=proj)
    for cell, proj in [*((cell, 0) for cell in CELLS), ("lstm", 9)]
    for dtype, both, packed in (("float32", False, False), ("float32", True, True), ("float64", True, False))
]


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("control", CONTROLS, ids=str)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_reference_and_the_loop_agree(case: Case, control: Control, isa: str) -> None:
    p = problem(case)
    expected, _ = reference(p, control)
    torchs = loop_in_orders(p, control)
    for threads in (1, 2):
        with machine(isa, threads):
            got = p.run(ours(p, control))
        assert got.keys() == torchs[0].keys()
        for name, want in expected.items():
            if name in got and want.size:
                where = f"{p.where}, {control}, isa {isa}, {threads} threads"
                assert_within_bound(name, got[name], [t[name] for t in torchs], want, where)


def test_a_limit_and_a_cut_change_the_gradients() -> None:
    """The controls above are no empty test: each but the last gives other gradients than BPTT alone."""
    p = problem(CASES[1])
    free, _ = reference(p, Control())
    for control in CONTROLS[:-1]:
        assert np.abs(reference(p, control)[0]["grad weight 1"] - free["grad weight 1"]).max() > 1e-3, control
    for name, value in reference(p, CONTROLS[-1])[0].items():
        np.testing.assert_array_equal(value, free[name])


@pytest.mark.parametrize("cell", CELLS)
def test_a_wrong_control_is_noticed(cell: str) -> None:
    """The check itself fails where the limit is a little off, of the other kind, or the cut a step away."""
    p = problem(next(c for c in CASES if c.cell == cell and c.packed))
    pairs = [
        (Control("value", 0.05), Control("value", 0.051)),
        (Control("norm", 0.5), Control("value", 0.5)),
        (Control(steps=3), Control(steps=4)),
        (Control("norm", 0.5), Control()),
    ]
    for right, wrong in pairs:
        expected, _ = reference(p, right)
        torchs, got = loop_in_orders(p, right), p.run(ours(p, wrong))
        for name in ("grad x", "grad weight 1"):
            with pytest.raises(AssertionError, match="beyond the bound"):
                assert_within_bound(name, got[name], [t[name] for t in torchs], expected[name], p.where)


SIZES = [(40, 33, 7, 130), (5, 70, 16, 24), (130, 3, 9, 64), (300, 1, 8, 16)]


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("control", [CONTROLS[2], CONTROLS[3]], ids=str)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn_tanh", "projection"])
def test_decompositions_and_chunks(cell: str, sizes: tuple[int, int, int, int], control: Control, isa: str) -> None:
    """By rows and by units, chunks of steps, shared by two threads."""
    proj = sizes[3] // 2 if cell == "projection" else 0
    p = problem(Case("lstm" if proj else cell, *sizes, proj=proj, packed=sizes[0] == 40))
    expected, _ = reference(p, control)
    torchs = [p.run(loop(p, control))]
    for threads in (1, 2):
        with machine(isa, threads):
            got = p.run(ours(p, control))
        for name, want in expected.items():
            if name in got and want.size:
                assert_within_bound(name, got[name], [t[name] for t in torchs], want, f"{p.where}, {isa}, {threads}")


@pytest.mark.parametrize("control", [CONTROLS[1], CONTROLS[3]], ids=str)
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("dtype", HALF)
def test_half_is_float_inside(dtype: str, cell: str, control: Control) -> None:
    p = problem(Case(cell, 9, 3, 5, 17, dtype=dtype, bidirectional=True, needs="x"))

    def widened(x: Tensor, h0: Tensor | None, c0: Tensor | None, weights: list[Tensor]) -> Any:
        states = [None if s is None else s.float() for s in (h0, c0)]
        outputs = ours(p, control)(x.float(), *states, [w.float() for w in weights])
        return [out.to(p.x.dtype) for out in outputs]

    got, expected = p.run(ours(p, control)), p.run(widened)
    for name in expected:
        assert_bitwise_equal(name, got[name], expected[name], p.where)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("steps", [1, 2, 3])
@pytest.mark.parametrize("cell", [*CELLS, "projection"])
def test_finite_differences_of_the_truncated_loss(cell: str, steps: int, isa: str) -> None:
    """Each segment starts from the states that the whole run passes there, held constant."""
    proj = 2 if cell == "projection" else 0
    args = arguments("lstm" if proj else cell, T=5, B=2, I=3, H=3, proj=proj, seed=4)
    layer, has_c = LAYERS[args.cell], args.c0 is not None
    gen = torch.Generator().manual_seed(3)
    bounds = sorted({0, 5, *range(5 - steps, 0, -steps)})  # where segments begin and end

    with machine(isa, 1), torch.no_grad():
        starts = []
        for begin in bounds[:-1]:
            state = (args.h0, args.c0)
            if begin:
                _, h_n, c_n, *_ = layer(args.x[:begin], args.h0, args.c0, *args.op[3:], False)
                state = (h_n, c_n if has_c else None)
            starts.append(state)
        y, h_n, c_n, *_ = layer(*args.op, False)
        weighing = [torch.randn(t.shape, generator=gen, dtype=torch.float64) for t in (y, h_n, c_n)]

        def loss(x: Tensor, *rest: Tensor) -> Tensor:
            left = list(rest)
            h0 = left.pop(0)
            c0 = left.pop(0) if has_c else None
            total = x.new_zeros(())
            for i, (begin, end) in enumerate(itertools.pairwise(bounds)):
                h, c = (h0, c0) if begin == 0 else starts[i]
                y, h_n, c_n, *_ = layer(x[begin:end], h, c, left, None, True, False, False)
                total = total + (y * weighing[0][begin:end]).sum()
            return total + (h_n * weighing[1]).sum() + ((c_n * weighing[2]).sum() if has_c else 0)

        slopes = []
        for i, tensor in enumerate(args.tensors):
            slope = torch.zeros_like(tensor)
            for at in np.ndindex(*tensor.shape):
                values = []
                for sign in (1, -1):
                    moved = [t.detach().clone() for t in args.tensors]
                    moved[i][at] += sign * 1e-5
                    values.append(loss(*moved))
                slope[at] = (values[0] - values[1]) / 2e-5
            slopes.append(slope)

    with machine(isa, 1):
        outputs = layer(*args.op, False, *codes(Control(steps=steps)))[: 3 if has_c else 2]
        got = torch.autograd.grad(outputs, args.tensors, weighing[: len(outputs)])
    for name, a, b in zip(args.names, got, slopes, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7, msg=lambda m, n=name: f"{cell}, {steps}, {n}: {m}")


def test_huge_and_tiny_signals_have_norms() -> None:
    """Whose squares leave float32's range: the limit is exact all the same."""
    p = problem(Case("rnn_tanh", 3, 2, 4, 17, needs="states", outputs="h"))
    for scale, limit in ((1e25, 0.5), (1e-30, 1e-33)):
        control = Control("norm", limit)
        grad_h = p.grads["h_n"] * scale
        h0 = p.h0.detach().clone().requires_grad_()
        _, h_n, _ = ours(p, control)(p.x, h0, None, p.weights)
        (got,) = torch.autograd.grad(h_n, h0, grad_h)
        x, w, sizes = p._x64, p._w64, p.batch_sizes
        (back,) = layer_backward("rnn_tanh", np.zeros((6, 17)), grad_h.double().numpy(), np.zeros((1, 0)), x, w,
                                 p._layer, sizes, control)  # fmt: skip
        np.testing.assert_allclose(got[0].numpy(), back.h0, rtol=1e-4, atol=1e-5 * np.abs(back.h0).max())


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("control", CONTROLS[:3], ids=str)
@pytest.mark.parametrize("cell", CELLS)
def test_same_bits_twice(cell: str, control: Control, threads: int) -> None:
    p = problem(Case(cell, 17, 31, 17, 65, bidirectional=True, packed=True))
    with machine("", threads):
        first, second = p.run(ours(p, control)), p.run(ours(p, control))
    for name in first:
        assert_bitwise_equal(name, first[name], second[name], f"{p.where}, {threads} threads")


@pytest.mark.parametrize("cell", CELLS)
def test_no_higher_derivatives(cell: str) -> None:
    args = arguments(cell)
    for control in (Control("value", 1.0), Control(steps=2)):
        more = codes(control)
        out = LAYERS[cell](*args.op, False, *more)[0]
        (first,) = torch.autograd.grad(out.square().sum(), args.x, create_graph=True)  # itself as ever
        with pytest.raises(NotImplementedError, match="double backward with bptt_clip or bptt_steps"):
            torch.autograd.grad(first.sum(), args.x)

        def f(x: Tensor, more: Any = more) -> Tensor:
            return LAYERS[cell](x, args.h0, args.c0, *args.op[3:], False, *more)[0].square().sum()

        x = args.x.detach()
        plain = torch.func.grad(f)(x)
        torch.testing.assert_close(plain, first.detach(), rtol=1e-12, atol=1e-12)
        with pytest.raises(NotImplementedError, match="forward-mode"):
            torch.func.jvp(f, (x,), (x,))
        with pytest.raises(NotImplementedError, match="with bptt_clip or bptt_steps"):
            torch.func.jacfwd(torch.func.grad(f))(x)


@pytest.mark.parametrize("cell", CELLS)
def test_vmap_controls_each_slice(cell: str) -> None:
    args = arguments(cell, B=3, grad=False)
    more = codes(Control("norm", 0.2, 2))

    def gradient(x: Tensor) -> Tensor:
        def f(x: Tensor) -> Tensor:
            return LAYERS[cell](x, args.h0, args.c0, *args.op[3:], False, *more)[0].square().sum()

        return torch.func.grad(f)(x)

    many = torch.stack([args.x, 2 * args.x, -args.x])
    torch.testing.assert_close(torch.func.vmap(gradient)(many), torch.stack([gradient(x) for x in many]))


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn_tanh"])
def test_opcheck(cell: str) -> None:
    args = arguments(cell, D=2)
    more = codes(Control("norm", 0.5, 2))
    torch.library.opcheck(LAYERS[cell], (*args.op, False, *more))
    plain = arguments(cell, D=2, grad=False)
    y, h_n, _, saved, cells = LAYERS[cell](*plain.op, True, *more)
    mask = [True] * (3 + len(plain.weights))
    mask[2] = plain.c0 is not None
    torch.library.opcheck(LAYERS_BACKWARD[cell], (y, h_n, None, *plain.op, y, saved, cells, mask, *more))


@pytest.mark.parametrize(
    ("limit", "bptt", "message"),
    [
        (1.0, [1, 0], r"bptt: expected \[\] or 6 entries"),
        (1.0, [3, 0, 0, 0, 0, 0], r"clip: expected 0 \(none\), 1 \(value\) or 2 \(norm\), got 3"),
        (0.0, [1, 0, 0, 0, 0, 0], "limit: expected a positive number .* got 0"),
        (-1.0, [2, 0, 0, 0, 0, 0], "limit: expected a positive number .* got -1"),
        (
            1e-310,
            [1, 0, 0, 0, 0, 0],
            r"from 2.22507e-308 to 1.79769e\+308, which float64 can hold, got 1e-310",
        ),
        (float("inf"), [1, 0, 0, 0, 0, 0], "limit: expected a positive number .* got inf"),
        (float("nan"), [1, 0, 0, 0, 0, 0], "limit: expected a positive number .* got nan"),
        (1.0, [0, -1, 0, 0, 0, 0], "expected no negative entry"),
        (1.0, [0, 0, 0, 1, 0, 0, -4], "expected no negative entry"),
        (1.0, [0, 0, 2**62 + 1, 0, 0, 0], r"steps and checkpoint: expected at most 2\^62"),
        (1.0, [0, 2**63 - 1, 0, 0, 0, 0], r"steps and checkpoint: expected at most 2\^62"),
    ],
)
def test_the_op_says_what_is_wrong(limit: float, bptt: list[int], message: str) -> None:
    args = arguments("gru")
    with pytest.raises(RuntimeError, match=f"rnnfast::gru_layer: .*{message}"):
        LAYERS["gru"](*args.op, False, limit, bptt)
