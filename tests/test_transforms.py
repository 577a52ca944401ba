# SPDX-License-Identifier: Apache-2.0
"""Forward-mode derivatives and torch.func's transforms of every cell, against those of the same formula in torch."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad

from tests.arguments import Arguments, arguments
from tests.cases import CELLS

pytestmark = pytest.mark.usefixtures("one_thread")

OPTIONS: list[dict[str, Any]] = [{}, {"D": 2, "bias": False, "h0": False}, {"packed": True}]
each_cell = pytest.mark.parametrize("cell", [*CELLS, "projection"])
each_option = pytest.mark.parametrize("options", OPTIONS, ids=["plain", "both", "packed"])

ALIVE = 4

Function = Callable[..., tuple[Tensor, ...]]


def make(cell: str, **options: Any) -> Arguments:
    """Without requires_grad: the transforms track their own arguments."""
    if cell == "projection":
        cell, options = "lstm", options | {"proj": 1}
    # With the seed of the others, most relus are off.
    return arguments(cell, **options, grad=False, seed=ALIVE if cell == "rnn_relu" else 0)


def scalar(f: Function) -> Callable[..., Tensor]:
    return lambda *tensors: torch.stack([r.sin().sum() * (k + 1) for k, r in enumerate(f(*tensors))]).sum()


def assert_same(got: Any, expected: Any, where: str) -> None:
    """float64, on two ways that differ by rounding only."""
    a, b = (torch.utils._pytree.tree_leaves(r) for r in (got, expected))
    assert len(a) == len(b)
    assert any(bool(y.any()) for y in b), f"{where}: nothing to compare"
    for i, (x, y) in enumerate(zip(a, b, strict=True)):
        torch.testing.assert_close(
            x, y, rtol=1e-9, atol=1e-9 * float(y.detach().abs().max()), msg=lambda m, i=i: f"{where}: result {i}: {m}"
        )


def tangents(tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
    gen = torch.Generator().manual_seed(1)
    return tuple(torch.randn(t.shape, generator=gen, dtype=t.dtype) for t in tensors)


@each_option
@each_cell
def test_jvp(cell: str, options: dict[str, Any]) -> None:
    args = make(cell, **options)
    primals, along = tuple(args.tensors), tangents(args.tensors)
    got, expected = (torch.func.jvp(f, primals, along) for f in (args.ours, args.plain))
    assert_same(got, expected, cell)


@each_cell
def test_dual_numbers(cell: str) -> None:
    """torch.autograd.forward_ad, with a tangent for one tensor at a time."""
    args = make(cell, D=2)
    along = tangents(args.tensors)
    for i, name in enumerate(args.names):
        results = []
        for f in (args.ours, args.plain):
            with forward_ad.dual_level():
                duals = [forward_ad.make_dual(t, along[j]) if i == j else t for j, t in enumerate(args.tensors)]
                results.append([forward_ad.unpack_dual(r).tangent for r in f(*duals)])
        assert_same(*results, f"{cell}: {name}")


@each_option
@each_cell
def test_grad_and_vjp(cell: str, options: dict[str, Any]) -> None:
    args = make(cell, **options)
    every = tuple(range(len(args.tensors)))
    got, expected = (torch.func.grad(scalar(f), argnums=every)(*args.tensors) for f in (args.ours, args.plain))
    assert_same(got, expected, cell)
    results = []
    for f in (args.ours, args.plain):
        outputs, pull = torch.func.vjp(f, *args.tensors)
        results.append((outputs, pull(tangents(outputs))))
    assert_same(*results, cell)


@each_cell
def test_tangents_of_incoming_gradients(cell: str) -> None:
    """Forward mode over a backward pass, along dL/dy, dL/dh_n and dL/dc_n only."""
    args = make(cell, D=2)
    results = []
    for f in (args.ours, args.plain):
        outputs, pull = torch.func.vjp(f, *args.tensors)
        along = tangents(outputs)
        results.append(torch.func.jvp(lambda *grads, pull=pull: pull(grads), tuple(t.detach() for t in outputs), along))
    assert_same(*results, cell)


@each_cell
def test_grad_of_grad(cell: str) -> None:
    args = make(cell, T=2)

    def penalty(f: Function) -> Callable[..., Tensor]:
        inner = torch.func.grad(scalar(f))
        return lambda *tensors: (inner(*tensors).norm() - 1) ** 2

    every = tuple(range(len(args.tensors)))
    got, expected = (torch.func.grad(penalty(f), argnums=every)(*args.tensors) for f in (args.ours, args.plain))
    assert_same(got, expected, cell)


@each_option
@each_cell
def test_jacobians(cell: str, options: dict[str, Any]) -> None:
    args = make(cell, **options)
    of = (0, 1, len(args.tensors) - 1)
    for jacobian in (torch.func.jacrev, torch.func.jacfwd):
        got, expected = (jacobian(f, argnums=of)(*args.tensors) for f in (args.ours, args.plain))
        assert_same(got, expected, f"{cell}: {jacobian.__name__}")


@each_cell
@pytest.mark.parametrize("packed", [False, True], ids=["dense", "packed"])
def test_hessian(cell: str, packed: bool) -> None:
    """torch.func.hessian (forward over reverse), reverse over reverse, reverse over forward."""
    args = make(cell, T=2, packed=packed)
    of = (0, 2)
    rev, fwd = torch.func.jacrev, torch.func.jacfwd
    expected = fwd(rev(scalar(args.plain), argnums=of), argnums=of)(*args.tensors)
    for outer, inner in ((fwd, rev), (rev, rev), (rev, fwd)):
        got = outer(inner(scalar(args.ours), argnums=of), argnums=of)(*args.tensors)
        assert_same(got, expected, f"{cell}: {outer.__name__} of {inner.__name__}")
    assert_same(torch.func.hessian(scalar(args.ours), argnums=of)(*args.tensors), expected, cell)


@each_cell
def test_hessian_vector_product(cell: str) -> None:
    args = make(cell, D=2)
    every = tuple(range(len(args.tensors)))
    results = []
    for f in (args.ours, args.plain):
        gradient = torch.func.grad(scalar(f), argnums=every)
        results.append(torch.func.jvp(gradient, tuple(args.tensors), tangents(args.tensors)))
    assert_same(*results, cell)


@each_cell
@pytest.mark.parametrize("batched", ["x", "states", "weights", "x and weights"])
@pytest.mark.parametrize("packed", [False, True], ids=["dense", "packed"])
def test_vmap(cell: str, batched: str, packed: bool) -> None:
    """A dimension more, for some of the arguments, at different places."""
    args = make(cell, D=2, packed=packed)
    dims: list[int | None] = []
    tensors = []
    gen = torch.Generator().manual_seed(2)
    for name, t in zip(args.names, args.tensors, strict=True):
        kind = "x" if name == "x" else "weights" if name.startswith("weights") else "states"
        dims.append((1 if name == "x" else 0) if kind in batched else None)
        many = torch.stack([t, t + torch.randn(t.shape, generator=gen, dtype=t.dtype), -t])
        tensors.append(t if dims[-1] is None else many.movedim(0, dims[-1]))
    got = torch.func.vmap(args.ours, in_dims=tuple(dims))(*tensors)
    slices = [
        args.ours(*(t if d is None else t.select(d, i) for t, d in zip(tensors, dims, strict=True))) for i in range(3)
    ]
    expected = [torch.stack(parts) for parts in zip(*slices, strict=True)]
    assert_same(got, expected, f"{cell}: {batched}")


@each_cell
@pytest.mark.parametrize("packed", [False, True], ids=["dense", "packed"])
def test_batched_gradients(cell: str, packed: bool) -> None:
    """Many backward passes at once by torch's older vmap, as torch.autograd.functional's vectorize=True does."""
    args = make(cell, D=2, packed=packed)
    for t in args.tensors:
        t.requires_grad_()
    results = []
    for f in (args.ours, args.plain):
        y, h_n, *_ = f(*args.tensors)
        grads = [torch.stack([torch.ones_like(t), t.detach(), t.detach().sin()]) for t in (y, h_n)]
        results.append(torch.autograd.grad((y, h_n), args.tensors, grads, is_grads_batched=True))
    assert_same(*results, cell)
    got, expected = (
        torch.autograd.functional.jacobian(lambda x, f=f: f(x, *args.tensors[1:])[0], args.x, vectorize=True)
        for f in (args.ours, args.plain)
    )
    assert_same(got, expected, cell)


@each_cell
def test_gradients_of_each_sample(cell: str) -> None:
    """vmap of grad: the weights are shared, each sample has its own gradient."""
    args = make(cell, B=1)
    x = torch.stack([args.x, args.x * 2, args.x.flip(0)])
    weights = tuple(range(len(args.tensors) - len(args.weights), len(args.tensors)))
    dims = (0, *(None,) * (len(args.tensors) - 1))
    got, expected = (
        torch.func.vmap(torch.func.grad(scalar(f), argnums=weights), in_dims=dims)(x, *args.tensors[1:])
        for f in (args.ours, args.plain)
    )
    assert_same(got, expected, cell)


@each_cell
def test_vmap_of_vmap(cell: str) -> None:
    args = make(cell)
    x = torch.stack([args.x, args.x * 2, args.x.flip(0)])
    x = torch.stack([x, -x])
    f = [lambda x, f=f: f(x, *args.tensors[1:])[0] for f in (args.ours, args.plain)]
    got, expected = (torch.func.vmap(torch.func.vmap(g))(x) for g in f)
    assert_same(got, expected, cell)


@each_cell
def test_forward_mode_in_half(cell: str) -> None:
    """Computed in float32, as everything else."""
    args = make(cell, dtype=torch.bfloat16)
    wide = make(cell, dtype=torch.float32)
    for t, w in zip(args.tensors, wide.tensors, strict=True):
        w.copy_(t)
    along = tangents(args.tensors)
    got = torch.func.jvp(args.ours, tuple(args.tensors), along)
    expected = torch.func.jvp(wide.plain, tuple(wide.tensors), tuple(t.float() for t in along))
    for a, b in zip(torch.utils._pytree.tree_leaves(got), torch.utils._pytree.tree_leaves(expected), strict=True):
        torch.testing.assert_close(a, b.bfloat16(), rtol=0.01, atol=0.01)
