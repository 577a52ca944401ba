# SPDX-License-Identifier: Apache-2.0
"""Derivatives: finite differences, torch.library.opcheck, and autograd's rules."""

import pytest
import torch
from torch import Tensor

from rnnfast.ops import lstm_layer, lstm_layer_backward
from tests.helpers import ISAS, assert_bitwise_equal, machine

SIZES = torch.tensor([3, 3, 1])


def inputs(T=3, B=2, I=3, H=2, D=1, bias=True, packed=False, dtype=torch.float64, grad=True, seed=0):
    gen = torch.Generator().manual_seed(seed)
    if packed:
        T, B = 3, 3

    def rand(*shape: int) -> Tensor:
        return torch.randn(shape, generator=gen, dtype=dtype).requires_grad_(grad)

    x = rand(int(SIZES.sum()), I) if packed else rand(T, B, I)
    kinds = [(4 * H, I), (4 * H, H)] + ([(4 * H,)] * 2 if bias else [])
    weights = [rand(*k) for _ in range(D) for k in kinds]
    return x, rand(D, B, H), rand(D, B, H), weights, SIZES if packed else None, bias, D == 2


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"T": 1},
        {"D": 2},
        {"bias": False},
        {"packed": True},
        {"packed": True, "D": 2},
        {"H": 9, "B": 7, "T": 2},
    ],
    ids=str,
)
def test_gradcheck(options: dict, isa: str) -> None:
    x, h0, c0, weights, sizes, bias, bidirectional = inputs(**options)

    def f(x, h0, c0, *weights):
        return lstm_layer(x, h0, c0, list(weights), sizes, bias, bidirectional, False)[:3]

    with machine(isa):
        assert torch.autograd.gradcheck(f, (x, h0, c0, *weights))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("options", [{}, {"D": 2, "bias": False}, {"T": 1, "B": 1, "I": 1, "H": 1}], ids=str)
def test_opcheck(options: dict, dtype: torch.dtype) -> None:
    args = inputs(**options, dtype=dtype)
    torch.library.opcheck(lstm_layer, (*args, False))
    torch.library.opcheck(lstm_layer, (args[0], None, None, *args[3:], True))
    plain = inputs(**options, dtype=dtype, grad=False)
    y, h_n, c_n, gates, cells = lstm_layer(*plain, True)
    mask = [True] * (3 + len(plain[3]))
    torch.library.opcheck(lstm_layer_backward, (y, h_n, None, *plain, y, gates, cells, mask))
    torch.library.opcheck(lstm_layer_backward, (None, None, c_n, *plain, y, gates, cells, [False, *mask[1:]]))


def test_opcheck_packed() -> None:
    args = inputs(packed=True, D=2)
    # The batch is a value of batch_sizes: shapes known only at run time are not traced, all else is checked.
    torch.library.opcheck(lstm_layer, (*args, False), test_utils=("test_schema", "test_autograd_registration"))


def _loss(result) -> Tensor:
    y, h_n, c_n = result[:3]
    return (y * y).sum() + (h_n * 2).sum() + c_n.sum()


def test_backward_twice_and_retain_graph() -> None:
    args = inputs(dtype=torch.float32)
    loss = _loss(lstm_layer(*args, False))
    first = torch.autograd.grad(loss, args[0], retain_graph=True)[0]
    second = torch.autograd.grad(loss, args[0])[0]
    assert_bitwise_equal("grad x", first, second)
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        torch.autograd.grad(loss, args[0])


def test_gradients_only_for_what_asks() -> None:
    x, h0, c0, weights, *rest = inputs()
    frozen = [w.detach().requires_grad_(i == 1) for i, w in enumerate(weights)]
    _loss(lstm_layer(x.detach(), h0.detach(), c0, frozen, *rest, False)).backward()
    assert c0.grad is not None
    assert frozen[1].grad is not None
    assert all(frozen[i].grad is None for i in (0, 2, 3))


def test_in_place_modification_is_noticed() -> None:
    args = inputs()
    y = lstm_layer(*args, False)[0]
    with torch.no_grad():
        args[3][1].mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_output_modified_in_place_is_noticed() -> None:
    args = inputs()
    y = lstm_layer(*args, False)[0]
    loss = (y * y).sum()
    with torch.no_grad():
        y.zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_double_backward_says_that_it_is_missing() -> None:
    args = inputs()
    (grad,) = torch.autograd.grad(_loss(lstm_layer(*args, False)), args[0], create_graph=True)
    with pytest.raises(NotImplementedError, match="double backward"):
        grad.sum().backward()


def test_no_saved_tensors_without_grad() -> None:
    args = inputs(grad=False)
    *_, gates, cells = lstm_layer(*args, False)
    assert gates.shape == cells.shape == (0,)
