# SPDX-License-Identifier: Apache-2.0
"""Derivatives of every cell and option, first and higher: finite differences, opcheck, torch's; autograd's rules."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from rnnfast.ops import LAYERS, LAYERS_BACKWARD
from tests.arguments import EVERY, IDS, Arguments, arguments
from tests.cases import CELLS
from tests.helpers import ISAS, assert_bitwise_equal, machine

pytestmark = pytest.mark.usefixtures("one_thread")

each_cell = pytest.mark.parametrize("cell", CELLS)
each_option = pytest.mark.parametrize(("cell", "options"), EVERY, ids=IDS)


@pytest.mark.parametrize("isa", ISAS)
@each_option
def test_gradcheck(cell: str, options: dict[str, Any], isa: str) -> None:
    args = arguments(cell, **options)
    with machine(isa, 1):
        assert torch.autograd.gradcheck(args.ours, args.tensors, check_forward_ad=True)


@pytest.mark.parametrize("isa", ISAS)
@each_cell
def test_gradcheck_of_larger_sizes(cell: str, isa: str) -> None:
    args = arguments(cell, T=2, B=7, H=9, D=2)
    with machine(isa, 2):
        assert torch.autograd.gradcheck(args.ours, args.tensors, fast_mode=True)


@each_option
def test_gradgradcheck(cell: str, options: dict[str, Any]) -> None:
    args = arguments(cell, **{"T": 2, "I": 2} | options)
    # Forward over reverse runs in tensor operations for all options alike: two of them are enough.
    forward = options in ({}, {"packed": True})
    assert torch.autograd.gradgradcheck(args.ours, args.tensors, check_fwd_over_rev=forward)


OPCHECKS: list[tuple[str, dict[str, Any], torch.dtype]] = [
    *((cell, {}, torch.float32) for cell in CELLS),
    *((cell, {"D": 2, "bias": False}, torch.float64) for cell in CELLS),
    ("lstm", {"proj": 1}, torch.float64),
    ("lstm", {"T": 1, "B": 1, "I": 1, "H": 1}, torch.float32),
    ("gru", {"h0": False}, torch.bfloat16),
]


@pytest.mark.parametrize(("cell", "options", "dtype"), OPCHECKS, ids=str)
def test_opcheck(cell: str, options: dict[str, Any], dtype: torch.dtype) -> None:
    args = arguments(cell, **options, dtype=dtype)
    forward, backward = LAYERS[cell], LAYERS_BACKWARD[cell]
    torch.library.opcheck(forward, (*args.op, False))
    torch.library.opcheck(forward, (args.x, None, None, *args.op[3:], True))
    plain = arguments(cell, **options, dtype=dtype, grad=False)
    y, h_n, c_n, saved, cells = forward(*plain.op, True)
    mask = [True] * (3 + len(plain.weights))
    mask[2] = plain.c0 is not None
    torch.library.opcheck(backward, (y, h_n, None, *plain.op, y, saved, cells, mask))
    grad_c_n = c_n if c_n.numel() else None
    torch.library.opcheck(backward, (None, h_n, grad_c_n, *plain.op, y, saved, cells, [False, *mask[1:]]))


@each_cell
def test_opcheck_packed(cell: str) -> None:
    args = arguments(cell, packed=True, D=2)
    # The batch is a value of batch_sizes: shapes known only at run time are not traced, all else is checked.
    torch.library.opcheck(LAYERS[cell], (*args.op, False), test_utils=("test_schema", "test_autograd_registration"))


def _loss(results: Sequence[Tensor]) -> Tensor:
    """Of y, h_n, c_n: differentiable as often as one likes, and different for every element."""
    terms = [(r * torch.linspace(0.5, 1.5, r.numel()).to(r.dtype).view(r.shape)).sin().sum() for r in results]
    return torch.stack([(k + 1) * t for k, t in enumerate(terms)]).sum()


def _assert_close(names: Sequence[str], got: Sequence[Tensor], expected: Sequence[Tensor], where: object) -> None:
    """float64, computed on two ways that differ by rounding only."""
    for name, a, b in zip(names, got, expected, strict=True):
        atol = 1e-9 * float(b.detach().abs().max()) + 1e-12
        torch.testing.assert_close(a, b, rtol=1e-9, atol=atol, msg=lambda m, n=name: f"{where}: {n}: {m}")


def _penalty(f: Callable[..., Sequence[Tensor]], args: Arguments, of: Sequence[Tensor]) -> list[Tensor]:
    """Gradients of a gradient penalty: the squared distance of |dL/d of| from 1, beside the loss itself."""
    tensors = args.tensors
    loss = _loss(f(*tensors))
    first = torch.autograd.grad(loss, of, create_graph=True)
    penalty = loss + sum((g.norm() - 1) ** 2 for g in first)
    asked = [t for t in tensors if t.requires_grad]
    return [*first, *torch.autograd.grad(penalty, asked)]


@each_option
def test_gradient_penalty(cell: str, options: dict[str, Any]) -> None:
    """First and second derivatives of all inputs, against autograd through the formula."""
    args = arguments(cell, **options)
    names = [*args.names, *(f"second {n}" for n in args.names)]
    _assert_close(names, _penalty(args.ours, args, args.tensors), _penalty(args.plain, args, args.tensors), options)


@pytest.mark.parametrize("cell", [c for c in CELLS if c != "rnn_sigmoid"])
@pytest.mark.parametrize("options", [{}, {"D": 2, "bias": False}], ids=str)
def test_double_backward_is_torch_nns(cell: str, options: dict[str, Any]) -> None:
    args = arguments(cell, **options, T=5, B=3, H=4)

    def theirs(*tensors: Tensor) -> tuple[Tensor, ...]:
        x, h0, *rest = tensors
        hx = (h0, rest.pop(0)) if cell == "lstm" else h0
        return getattr(torch._VF, cell)(x, hx, rest, args.has_biases, 1, 0.0, True, args.bidirectional, False)

    _assert_close(args.names, _penalty(args.ours, args, [args.x])[1:], _penalty(theirs, args, [args.x])[1:], options)


@each_cell
def test_double_backward_of_what_asks_only(cell: str) -> None:
    """Each tensor alone, and without the others: frozen weights, a frozen input."""
    base = arguments(cell, D=2)
    for i, name in enumerate(base.names):
        for alone in (True, False):
            args = arguments(cell, D=2)
            for j, t in enumerate(args.tensors):
                t.requires_grad_((j == i) == alone)
            of = [t for t in args.tensors if t.requires_grad]
            got, expected = _penalty(args.ours, args, of), _penalty(args.plain, args, of)
            _assert_close([str(k) for k in range(len(got))], got, expected, f"{cell}: {name}, alone {alone}")


@each_cell
def test_double_backward_of_one_output(cell: str) -> None:
    """Gradients of the other outputs are undefined, in the first backward and the second."""
    args = arguments(cell, packed=True)
    for k in range(3 if cell == "lstm" else 2):
        one = [lambda *t, f=f, k=k: f(*t)[k : k + 1] for f in (args.ours, args.plain)]
        got, expected = (_penalty(f, args, args.tensors[:2]) for f in one)
        _assert_close([str(i) for i in range(len(got))], got, expected, f"{cell}: output {k}")


@each_cell
def test_third_derivative(cell: str) -> None:
    args = arguments(cell, T=2, D=2, packed=cell == "lstm")

    def third(f: Callable[..., Sequence[Tensor]]) -> list[Tensor]:
        loss = _loss(f(*args.tensors))
        for _ in range(2):
            loss = _loss(torch.autograd.grad(loss, args.tensors, create_graph=True))
        return list(torch.autograd.grad(loss, args.tensors))

    _assert_close(args.names, third(args.ours), third(args.plain), cell)


@each_cell
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_double_backward_in_half_is_floats(cell: str, dtype: torch.dtype) -> None:
    args = arguments(cell, T=4, H=5, D=2, dtype=dtype)

    def widened(*tensors: Tensor) -> list[Tensor]:
        return [out.to(dtype) for out in args.ours(*(t.float() for t in tensors))]

    got, expected = _penalty(args.ours, args, [args.x]), _penalty(widened, args, [args.x])
    for name, a, b in zip(["first x", *args.names], got, expected, strict=True):
        assert_bitwise_equal(name, a, b, cell)


@each_cell
def test_double_backward_gives_the_same_bits_twice(cell: str) -> None:
    args = arguments(cell, T=9, B=8, I=16, H=17, D=2, dtype=torch.float32)
    for name, a, b in zip(
        ["first x", *args.names], *(_penalty(args.ours, args, [args.x]) for _ in range(2)), strict=True
    ):
        assert_bitwise_equal(name, a, b, cell)


@each_cell
def test_backward_twice_and_retain_graph(cell: str) -> None:
    args = arguments(cell, dtype=torch.float32)
    loss = _loss(args.ours(*args.tensors))
    first = torch.autograd.grad(loss, args.tensors, retain_graph=True)
    second = torch.autograd.grad(loss, args.tensors)
    for name, a, b in zip(args.names, first, second, strict=True):
        assert_bitwise_equal(name, a, b)
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        torch.autograd.grad(loss, args.tensors)


@each_cell
def test_second_derivative_twice(cell: str) -> None:
    args = arguments(cell)
    (first,) = torch.autograd.grad(_loss(args.ours(*args.tensors)), args.x, create_graph=True)
    again = torch.autograd.grad(first.square().sum(), args.tensors, retain_graph=True)
    once_more = torch.autograd.grad(first.square().sum(), args.tensors, retain_graph=False)
    for name, a, b in zip(args.names, again, once_more, strict=True):
        assert_bitwise_equal(name, a, b)
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        torch.autograd.grad(first.square().sum(), args.tensors)


@each_cell
def test_gradients_only_for_what_asks(cell: str) -> None:
    base = arguments(cell, D=2)
    expected = torch.autograd.grad(_loss(base.ours(*base.tensors)), base.tensors)
    for i, name in enumerate(base.names):
        args = arguments(cell, D=2, grad=False)
        args.tensors[i].requires_grad_()
        _loss(args.ours(*args.tensors)).backward()
        for j, t in enumerate(args.tensors):
            assert (t.grad is not None) == (i == j), name
        grad = args.tensors[i].grad
        assert grad is not None
        assert_bitwise_equal(name, grad, expected[i], cell)


@each_cell
@pytest.mark.parametrize("changed", ["x", "h0", "c0", "weights[0]", "weights[1]", "weights[3]", "batch_sizes"])
def test_in_place_modification_is_noticed(cell: str, changed: str) -> None:
    args = arguments(cell, packed=True)
    named: dict[str, Any] = dict(zip(args.names, args.tensors, strict=True)) | {"batch_sizes": args.batch_sizes}
    if changed not in named:
        return
    loss = _loss(args.ours(*args.tensors))
    with torch.no_grad():
        named[changed].mul_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@each_cell
def test_output_modified_in_place_is_noticed(cell: str) -> None:
    args = arguments(cell)
    y = args.ours(*args.tensors)[0]
    loss = y.sum()
    with torch.no_grad():
        y.zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@each_cell
def test_output_may_be_changed_where_nothing_asks(cell: str) -> None:
    """Outputs are ordinary tensors: in-place operations on h_n are torch's to record."""
    args = arguments(cell)
    y, h_n, *_ = args.ours(*args.tensors)
    h_n.mul_(2)
    got = torch.autograd.grad(y.sum() + h_n.sum(), args.x)
    y, h_n, *_ = args.plain(*args.tensors)
    _assert_close(["x"], got, torch.autograd.grad(y.sum() + 2 * h_n.sum(), args.x), cell)


@each_cell
@pytest.mark.parametrize("proj", [0, 1])
def test_what_is_saved(cell: str, proj: int) -> None:
    """With a gradient to come, as the contract says (and not differentiable); without, nothing."""
    D, T, B, H = 2, 3, 2, 4
    proj *= cell == "lstm"
    S = {"lstm": 4, "gru": 4}.get(cell, 0)
    args = arguments(cell, T=T, B=B, H=H, D=D, proj=proj)
    *outputs, saved, cells = LAYERS[cell](*args.op, False)
    assert saved.shape == ((D, T * B, S * H) if S else (0,))
    assert cells.shape == ((D, T * B, H) if cell == "lstm" else (0,))
    assert not saved.requires_grad
    assert not cells.requires_grad
    assert all(o.requires_grad for o in outputs if o.numel())
    with torch.no_grad():
        *outputs, saved, cells = LAYERS[cell](*args.op, False)
    assert saved.shape == cells.shape == (0,)
    plain = arguments(cell, T=T, B=B, H=H, D=D, proj=proj, grad=False)
    *outputs, saved, cells = LAYERS[cell](*plain.op, False)
    assert saved.shape == cells.shape == (0,)
    assert not any(o.requires_grad for o in outputs)
