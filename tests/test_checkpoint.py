# SPDX-License-Identifier: Apache-2.0
"""Recomputation: the gradients of a run that uses the same segments, bit for bit; and those of the whole sequence."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

import rnnfast
from rnnfast.ops import LAYERS, LAYERS_BACKWARD
from tests.arguments import arguments
from tests.cases import CELLS, Case
from tests.helpers import ISAS, assert_bitwise_equal, assert_within_bound, machine
from tests.problem import Problem, problem
from tests.reference import Control
from tests.test_bptt import codes, loop_in_orders, reference

pytestmark = pytest.mark.usefixtures("one_thread")


def recomputing(p: Problem, every: int, control: Control = Control()) -> Any:  # noqa: B008
    limit, bptt = codes(control)
    bptt[2] = every

    def layer(x: Tensor, h0: Tensor | None, c0: Tensor | None, weights: list[Tensor]) -> Any:
        case = p.case
        return LAYERS[case.cell](x, h0, c0, weights, p.sizes, case.bias, case.bidirectional, False, limit, bptt)[:3]

    return layer


CASES = [
    Case(cell, 11, 4, 5, 19, dtype=dtype, bidirectional=both, packed=packed, c0=cell == "lstm", proj=proj)
    for cell, proj in [*((cell, 0) for cell in CELLS), ("lstm", 9)]
    for dtype, both, packed in (("float32", True, True), ("float64", True, False), ("bfloat16", False, False))
]


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("every", [1, 3, 4, 11, 50])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_gradients_are_those_of_the_reference(case: Case, every: int, isa: str) -> None:
    p = problem(case)
    with machine(isa, 2):
        got = p.run(recomputing(p, every))
    for name, tensor in got.items():
        where = f"{p.where}, every {every}, isa {isa}"
        assert_within_bound(name, tensor, p.torch_results(name), p.reference[name], where)


@pytest.mark.parametrize(("every", "isa"), [(1, ""), (2, ""), (5, ""), *((3, isa) for isa in ISAS)])
@pytest.mark.parametrize("control", [Control("norm", 0.4, 2), Control("value", 0.1, 3)], ids=str)
@pytest.mark.parametrize("case", [c for c in CASES if c.dtype != "bfloat16"], ids=str)
def test_with_limits_and_cuts(case: Case, control: Control, every: int, isa: str) -> None:
    p = problem(case)
    expected, _ = reference(p, control)
    torchs = loop_in_orders(p, control)
    with machine(isa, 1):
        got = p.run(recomputing(p, every, control))
    for name, want in expected.items():
        if name in got and want.size:
            where = f"{p.where}, {control}, every {every}, isa {isa}"
            assert_within_bound(name, got[name], [t[name] for t in torchs], want, where)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("every", [4, 6])
@pytest.mark.parametrize("cell", [*CELLS, "projection"])
def test_bitwise_a_run_of_the_same_segments(cell: str, every: int, threads: int) -> None:
    proj = 20 if cell == "projection" else 0
    kind = "lstm" if proj else cell
    T = 10
    args = arguments(kind, T=T, B=7, I=19, H=33, proj=proj, dtype=torch.float32)
    has_c = args.c0 is not None
    gen = torch.Generator().manual_seed(1)
    with machine("", threads):
        limit, bptt = codes(Control())
        bptt[2] = every
        outputs = LAYERS[kind](*args.op, False, limit, bptt)[: 3 if has_c else 2]
        grads = [torch.randn(o.shape, generator=gen) for o in outputs]
        got = dict(zip(args.names, torch.autograd.grad(outputs, args.tensors, grads), strict=True))

        # The same segments by the ordinary ops, states and their gradients handed on.
        plain = arguments(kind, T=T, B=7, I=19, H=33, proj=proj, dtype=torch.float32, grad=False)
        states, parts, kept = (plain.h0, plain.c0), [], []
        for begin in range(0, T, every):
            x = plain.x[begin : begin + every]
            result = LAYERS[kind](x, *states, *plain.op[3:], True)
            kept.append((x, *states, result))
            parts.append(result[0])
            states = (result[1], result[2] if has_c else None)
        assert_bitwise_equal("y", outputs[0], torch.cat(parts))
        assert_bitwise_equal("h_n", outputs[1], states[0])
        mask = [True, True, has_c] + [True] * len(plain.weights)
        dh, dc = grads[1], grads[2] if has_c else None
        dx, weights = [], [torch.zeros_like(w) for w in plain.weights]
        for i in reversed(range(len(kept))):
            x, h, c, (y, _, _, saved, cells) = kept[i]
            grad_y = grads[0][i * every : i * every + len(x)].contiguous()
            inputs = (x, h, c, *plain.op[3:])
            part, dh, dc, dw = LAYERS_BACKWARD[kind](grad_y, dh, dc if has_c else None, *inputs, y, saved, cells, mask)
            dx.insert(0, part)
            weights = [a + b for a, b in zip(weights, dw, strict=True)]
    assert_bitwise_equal("dx", got["x"], torch.cat(dx))
    assert_bitwise_equal("dh0", got["h0"], dh)
    if has_c:
        assert_bitwise_equal("dc0", got["c0"], dc)
    for i, w in enumerate(weights):
        torch.testing.assert_close(got[f"weights[{i}]"], w, rtol=1e-5, atol=1e-5 * float(w.abs().max()))


@pytest.mark.parametrize("layer", ["RNN", "LSTM", "GRU"])
def test_modules(layer: str) -> None:
    torch.manual_seed(0)
    plain = getattr(rnnfast, layer)(3, 5, num_layers=2, bidirectional=True, dtype=torch.float64)
    module = getattr(rnnfast, layer)(
        3, 5, num_layers=2, bidirectional=True, dtype=torch.float64, checkpoint_every="auto"
    )
    module.load_state_dict(plain.state_dict())
    x = torch.randn(17, 4, 3, dtype=torch.float64)
    for m in (plain, module):
        m(x)[0].square().sum().backward()
    for (name, a), b in zip(module.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-10, atol=1e-12, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn_tanh"])
def test_opcheck_and_double_backward(cell: str) -> None:
    args = arguments(cell, D=2, T=5)
    more = (0.0, [0, 0, 2, 0, 0, 0])
    torch.library.opcheck(LAYERS[cell], (*args.op, False, *more))
    plain = arguments(cell, D=2, T=5, grad=False)
    y, h_n, _, saved, cells = LAYERS[cell](*plain.op, True, *more)
    assert saved.shape == (2, 2, 2, 2)
    mask = [True] * (3 + len(plain.weights))
    mask[2] = plain.c0 is not None
    torch.library.opcheck(LAYERS_BACKWARD[cell], (y, h_n, None, *plain.op, y, saved, cells, mask, *more))
    torch.library.opcheck(LAYERS[cell], (*args.op, False, 0.0, [0, 0, -1, 0, 0, 0]))
    second = []
    for given in ((), more):
        (first,) = torch.autograd.grad(LAYERS[cell](*args.op, False, *given)[0].sin().sum(), args.x, create_graph=True)
        second.append(torch.autograd.grad(first.square().sum(), args.tensors))
    for a, b in zip(*second, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("cell", ["lstm", "rnn_tanh"])
def test_one_segment_however_long(cell: str) -> None:
    """More steps than any sequence has: nothing is kept, and no sum of lengths overflows."""
    args = arguments(cell, D=2, T=5)
    y, _, _, saved, cells = LAYERS[cell](*args.op, True, 0.0, [0, 0, 2**62, 0, 0, 0])
    assert saved.shape == (2, 0, *args.h0.shape[1:])
    assert cells.shape == ((2, 0, *args.c0.shape[1:]) if args.c0 is not None else (0,))
    expected = torch.autograd.grad(LAYERS[cell](*args.op, True)[0].sin().sum(), args.tensors)
    for a, b in zip(torch.autograd.grad(y.sin().sum(), args.tensors), expected, strict=True):
        torch.testing.assert_close(a, b)
    module = rnnfast.GRU(3, 5, checkpoint_every=10**30, bptt_steps=10**30)
    module(torch.randn(7, 2, 3))[0].sum().backward()


@pytest.mark.parametrize("packed", [False, True])
def test_auto_is_about_the_root_of_the_steps(packed: bool) -> None:
    """Of all lengths: as many states as sqrt(T), rounded up, leaves, of the op and of its shapes for the compiler."""
    for T in [*range(1, 38), 99, 100, 101, 9999, 10000, 10001]:
        every = math.isqrt(T - 1) + 1
        x, weights = torch.zeros(T, 1, 1), [torch.zeros(4, 1)] * 2
        sizes = torch.ones(T, dtype=torch.int64) if packed else None
        x = x[:, 0] if packed else x
        args = (None, None, weights, sizes, False, False, True, 0.0)
        got = LAYERS["lstm"](x, *args, [0, 0, -1, 0, 0, 0])
        explicit = LAYERS["lstm"](x, *args, [0, 0, every, 0, 0, 0])
        fake = LAYERS["lstm"](x.to("meta"), *args[:2], [w.to("meta") for w in weights], *args[3:], [0, 0, -1, 0, 0, 0])
        assert [t.shape for t in got] == [t.shape for t in explicit] == [t.shape for t in fake], T
        assert got[3].shape == (1, (T - 1) // every, 1, 1)
    with pytest.raises(RuntimeError, match="expected no negative entry but -1 for checkpoint"):
        LAYERS["lstm"](x, *args, [0, 0, -2, 0, 0, 0])


@pytest.mark.slow
def test_memory_does_not_grow_with_the_gates() -> None:
    """What autograd keeps of a layer: the states of a segment's begin, not the gates of every step."""
    module = rnnfast.LSTM(8, 16, checkpoint_every="auto")
    kept: list[Tensor] = []
    x = torch.randn(400, 2, 8, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        y, _ = module(x)
    weights = {p.data_ptr() for p in module.parameters()} | {x.data_ptr(), y.data_ptr()}
    beside = sum(t.numel() for t in kept if t.data_ptr() not in weights)
    assert beside <= 2 * 20 * 2 * 16, beside
