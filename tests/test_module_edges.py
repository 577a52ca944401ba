# SPDX-License-Identifier: Apache-2.0
"""Inputs and calls at the edge of torch.nn's interface: meta and sparse tensors, its private names, tensors only."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence

import rnnfast
from rnnfast import fallback, functional
from rnnfast.ops import LAYERS_BACKWARD
from tests.torchs import CELLS, LAYERS, flat, packed, pair

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("bidirectional", [False, True])
def test_packed_on_meta(name: str, bidirectional: bool) -> None:
    """As in torch.nn: sizes without values, also of the gradients; B is read from batch_sizes, which is on the CPU."""
    theirs, ours = pair(name, 5, 8, 2, bidirectional=bidirectional, device="meta")
    x = packed([4, 2, 1], 5)
    x = PackedSequence(x.data.to("meta"), x.batch_sizes)
    expected, got = theirs(x), ours(x)
    for a, b in zip((*flat(expected[0]), *flat(expected[1])), (*flat(got[0]), *flat(got[1])), strict=True):
        assert a.shape == b.shape
        assert b.is_meta
    assert torch.equal(got[0].batch_sizes, x.batch_sizes)
    got[0].data.sum().backward()
    assert ours.weight_hh_l0.grad.shape == ours.weight_hh_l0.shape


def test_backward_on_meta_has_no_c() -> None:
    """grad_c0 of a cell without c has shape [0], even if it is asked for."""
    x, h, y = (torch.zeros(3, 2, n, device="meta") for n in (5, 8, 8))
    weights = [torch.zeros(n, m, device="meta") for n, m in ((24, 5), (24, 8))]
    saved = torch.zeros(1, 6, 32, device="meta")
    none = torch.zeros(0, device="meta")
    asked = [True] * 5
    found = LAYERS_BACKWARD["gru"](y, None, None, x, h[:1], None, weights, None, False, False, y, saved, none, asked)
    assert [g.shape for g in found[:3]] == [(3, 2, 5), (1, 2, 8), (0,)]


@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("batched", [True, False])
def test_cells_take_sparse_input(name: str, batched: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fallback, "_warned", set())
    theirs, ours = pair(name, 5, 8)
    x = torch.eye(5)[:2] if batched else torch.eye(5)[1]
    expected = flat(theirs(x.to_sparse()))
    with pytest.warns(UserWarning, match=r"no rnnfast kernels for layout torch.sparse_coo; running torch's own"):
        got = flat(ours(x.to_sparse()))
    torch.testing.assert_close(got, expected)
    assert rnnfast.explain(ours, x.to_sparse()).path == "torch"


@pytest.mark.filterwarnings("ignore:rnnfast")
@pytest.mark.parametrize("name", LAYERS)
def test_layers_refuse_sparse_input_as_torch(name: str) -> None:
    theirs, ours = pair(name, 5, 8)
    x = torch.ones(3, 2, 5).to_sparse()
    with pytest.raises(RuntimeError) as expected:
        theirs(x)
    with pytest.raises(type(expected.value)) as got:
        ours(x)
    assert str(got.value) == str(expected.value)


@pytest.mark.parametrize("name", LAYERS)
def test_private_names_of_torch(name: str) -> None:
    """For subclasses moved here by their import: the upkeep of the list of weights, of which nothing can go stale."""
    theirs, ours = pair(name, 5, 8)
    for module in (theirs, ours):
        assert module._init_flat_weights() is None
        assert module._update_flat_weights() is None
        assert module._weights_have_changed() is False
    with pytest.raises(TypeError, match="item assignment"):
        ours._flat_weights[0] = nn.Parameter(torch.zeros(1))  # else it would be lost without a word
    assert all(a is b for a, b in zip(ours._flat_weights, ours.parameters(), strict=True))
    ours._flat_weights = [getattr(ours, n) for n in ours._flat_weights_names]


@pytest.mark.parametrize("name", ["lstm", "gru", "rnn"])
def test_functional_takes_any_iterable(name: str) -> None:
    torch.manual_seed(0)
    module = getattr(rnnfast, name.upper())(5, 8, 2)
    x = torch.randn(3, 2, 5)
    got = getattr(functional, name)(x, None, (w for w in module.parameters()), num_layers=2)
    assert torch.equal(got[0], module(x)[0])


@pytest.mark.parametrize("name", ["lstm", "gru", "rnn"])
def test_functional_errors(name: str) -> None:
    call: Any = getattr(functional, name)
    with pytest.raises(ValueError, match="num_layers must be greater than zero"):
        call(torch.zeros(3, 2, 5), None, [], num_layers=0)
    with pytest.raises(RuntimeError, match=r"rnnfast.functional: weights: expected .* tensors .*, got 0"):
        call(torch.zeros(3, 2, 5), None, [])


@pytest.mark.parametrize("name", CELLS)
def test_errors_of_the_op_pass(name: str) -> None:
    """A cell makes torch's checks after its op has failed: what they do not know is the op's own error."""
    ours = getattr(rnnfast, name)(5, 8)
    ours.weight_hh = nn.Parameter(ours.weight_hh.detach().double())
    with pytest.raises(RuntimeError, match=r"rnnfast::\w+_layer: .*dtype") as error:
        ours(torch.zeros(2, 5))
    assert error.value.__context__ is None


@pytest.mark.parametrize("name", CELLS)
def test_cells_check_sizes_on_meta(name: str) -> None:
    """There the op sees no sizes; the checks come first."""
    ours = getattr(rnnfast, name)(5, 8, device="meta")
    with pytest.raises(RuntimeError, match="input has inconsistent input_size: got 4 expected 5"):
        ours(torch.zeros(2, 4, device="meta"))
    state = torch.zeros(3, 8, device="meta")
    with pytest.raises(RuntimeError, match="Input batch size 2 doesn't match hidden0 batch size 3"):
        ours(torch.zeros(2, 5, device="meta"), (state, state) if name == "LSTMCell" else state)


def test_public_types() -> None:
    model = nn.Sequential(nn.GRU(5, 8))
    report = rnnfast.accelerate(model)
    assert type(report) is rnnfast.Report
    assert type(report.rows[0]) is rnnfast.Row
    assert type(rnnfast.freeze(model[0])) is rnnfast.Frozen
