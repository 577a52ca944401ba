# SPDX-License-Identifier: Apache-2.0
"""RNNCell, LSTMCell and GRUCell against torch.nn's: results, gradients, errors."""

from typing import Any

import pytest
import torch
from torch import nn

import rnnfast
from tests.torchs import CELLS, assert_same, flat, pair, state_of

pytestmark = pytest.mark.usefixtures("one_thread")

KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "tanh": ("RNNCell", {}),
    "relu": ("RNNCell", {"nonlinearity": "relu"}),
    "lstm": ("LSTMCell", {}),
    "gru": ("GRUCell", {}),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("batch", [1, 7, None], ids=lambda b: "unbatched" if b is None else f"B={b}")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_same_results(kind: str, bias: bool, batch: int | None, dtype: torch.dtype) -> None:
    name, more = KINDS[kind]
    theirs, ours = pair(name, 5, 17, bias, dtype=dtype, **more)
    gen = torch.Generator().manual_seed(3)
    x = torch.randn(*([5] if batch is None else [batch, 5]), generator=gen, dtype=dtype)
    assert_same(theirs, ours, x)
    assert_same(theirs, ours, x, state_of(ours, batch, dtype))


@pytest.mark.parametrize("kind", KINDS)
def test_forms_of_input(kind: str) -> None:
    name, more = KINDS[kind]
    theirs, ours = pair(name, 5, 17, **more)
    gen = torch.Generator().manual_seed(3)
    hx = state_of(ours, 4)
    for x in (
        torch.randn(5, 4, generator=gen).T,
        torch.randn(4, 10, generator=gen)[:, ::2],
        torch.randn(1, 5, generator=gen).expand(4, 5),
        torch.randn(4, 1, generator=gen).expand(4, 5),
    ):
        assert_same(theirs, ours, x, hx)


@pytest.mark.parametrize("kind", KINDS)
def test_a_loop_is_the_layer(kind: str) -> None:
    """A cell called step by step, and its gradients through time, are the layer's."""
    name, more = KINDS[kind]
    torch.manual_seed(0)
    cell = getattr(rnnfast, name)(5, 8, dtype=torch.float64, **more)
    layer = getattr(rnnfast, name[:-4])(5, 8, dtype=torch.float64, **more)
    layer.load_state_dict({f"{k}_l0": v for k, v in cell.state_dict().items()})
    x = torch.randn(6, 3, 5, dtype=torch.float64)
    hx, ys = None, []
    for step in x:
        hx = cell(step, hx)
        ys.append(hx[0] if isinstance(hx, tuple) else hx)
    y = torch.stack(ys)
    torch.testing.assert_close(y, layer(x)[0])
    y.square().sum().backward()
    layer(x)[0].square().sum().backward()
    torch.testing.assert_close([p.grad for p in cell.parameters()], [p.grad for p in layer.parameters()])


@pytest.mark.parametrize("kind", KINDS)
def test_sizes_of_zero(kind: str) -> None:
    name, more = KINDS[kind]
    for sizes, x in (((5, 8), torch.zeros(0, 5)), ((0, 8), torch.zeros(2, 0)), ((5, 0), torch.zeros(2, 5))):
        theirs, ours = pair(name, *sizes, **more)
        expected, got = flat(theirs(x)), flat(ours(x))
        assert [t.shape for t in got] == [t.shape for t in expected]
        torch.testing.assert_close(got, expected)
        sum(t.sum() for t in got).backward()


def test_sigmoid() -> None:
    torch.manual_seed(0)
    cell = rnnfast.RNNCell(5, 8, nonlinearity="sigmoid")
    x, h = torch.randn(3, 5), torch.randn(3, 8)
    want = torch.sigmoid(x @ cell.weight_ih.T + cell.bias_ih + h @ cell.weight_hh.T + cell.bias_hh)
    torch.testing.assert_close(cell(x, h), want)
    assert repr(cell) == "RNNCell(5, 8, nonlinearity=sigmoid)"


def test_unknown_nonlinearity() -> None:
    for module in pair("RNNCell", 5, 8, nonlinearity="softmax"):
        with pytest.raises(RuntimeError, match="Unknown nonlinearity: softmax"):
            module(torch.zeros(2, 5))


def state(*shape: int, dtype: torch.dtype = torch.float32, device: str = "cpu") -> torch.Tensor:
    return torch.zeros(shape, dtype=dtype, device=device)


def twice(name: str, tensor: Any) -> Any:
    return (tensor, tensor) if name == "LSTMCell" else tensor


BAD_CALLS: dict[str, Any] = {  # name -> (x, hx)
    "0-D": lambda n: (state(), None),
    "3-D": lambda n: (state(1, 2, 5), None),
    "list": lambda n: ([1.0], None),
    "features": lambda n: (state(2, 4), None),
    "features unbatched": lambda n: (state(4), None),
    "hx 3-D": lambda n: (state(2, 5), twice(n, state(1, 2, 8))),
    "hx 0-D": lambda n: (state(2, 5), twice(n, state())),
    "hx hidden": lambda n: (state(2, 5), twice(n, state(2, 7))),
    "hx batch": lambda n: (state(2, 5), twice(n, state(3, 8))),
    "hx batch of one": lambda n: (state(2, 5), twice(n, state(1, 8))),
    "hx unbatched": lambda n: (state(2, 5), twice(n, state(8))),
    "hx batched, x not": lambda n: (state(5), twice(n, state(1, 8))),
    "dtype": lambda n: (state(2, 5, dtype=torch.float64), None),
    "integer": lambda n: (state(2, 5, dtype=torch.int32), None),
    "hx dtype": lambda n: (state(2, 5), twice(n, state(2, 8, dtype=torch.float64))),
    "device": lambda n: (state(2, 5, device="meta"), None),
    "hx device": lambda n: (state(2, 5), twice(n, state(2, 8, device="meta"))),
    "hx single or tuple": lambda n: (state(2, 5), state(2, 8) if n == "LSTMCell" else (state(2, 8),)),
    "hx list": lambda n: (state(2, 5), [state(2, 8)] * (3 if n == "LSTMCell" else 1)),
    "hx of None": lambda n: (state(2, 5), (None, None)),
}
OWN_MESSAGES = {"dtype", "integer", "hx dtype", "device", "hx device", "hx single or tuple", "hx list"}


@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("case", BAD_CALLS)
def test_call_errors(name: str, case: str) -> None:
    theirs, ours = pair(name, 5, 8)
    x, hx = BAD_CALLS[case](name)
    with pytest.raises((ValueError, RuntimeError, TypeError, AttributeError)) as expected:
        theirs(x, hx)
    with pytest.raises(type(expected.value)) as got:
        ours(x, hx)
    assert type(got.value) is type(expected.value)
    if case not in OWN_MESSAGES:
        assert str(got.value) == str(expected.value)
    assert len(str(got.value)) > 20


@pytest.mark.parametrize("name", CELLS)
def test_second_state_is_checked(name: str) -> None:
    if name != "LSTMCell":
        return
    for module in pair(name, 5, 8):
        for bad, message in ((state(3, 8), "hidden1 batch size 3"), (state(2, 7), "hidden1 has inconsistent")):
            with pytest.raises(RuntimeError, match=message):
                module(state(2, 5), (state(2, 8), bad))


@pytest.mark.parametrize("name", CELLS)
def test_construction_errors(name: str) -> None:
    for args in ((), (5,), (5, 8.0), (5, -1), (5, 8, True, "tanh", None, None, 1)):
        with pytest.raises((TypeError, RuntimeError)) as expected:
            getattr(nn, name)(*args)
        with pytest.raises(type(expected.value)) as got:
            getattr(rnnfast, name)(*args)
        assert str(got.value) == str(expected.value)


@pytest.mark.parametrize("name", CELLS)
def test_one_bias_removed(name: str) -> None:
    """torch.nn's cells read each bias on its own."""
    theirs, ours = pair(name, 5, 8)
    for module in (theirs, ours):
        module.bias_hh = None
    assert_same(theirs, ours, torch.ones(2, 5))


@pytest.mark.parametrize("name", CELLS)
def test_double_backward(name: str) -> None:
    got = []
    for module in pair(name, 3, 4, dtype=torch.float64):
        x = torch.ones(2, 3, dtype=torch.float64).requires_grad_()
        loss = sum(t.square().sum() for t in flat(module(x, state_of(module, 2, torch.float64))))
        (g,) = torch.autograd.grad(loss, x, create_graph=True)
        got.append(torch.autograd.grad(g.square().sum(), [x, *module.parameters()]))
    torch.testing.assert_close(got[1], got[0])
