# SPDX-License-Identifier: Apache-2.0
"""nan_policy="raise": the first state, or error signal, that is not finite, by layer, direction, step and sample."""

import re
from typing import Any

import pytest
import torch

import rnnfast
from tests.torchs import flat

pytestmark = pytest.mark.usefixtures("one_thread")
KINDS = ["RNN", "LSTM", "GRU"]
every = pytest.mark.parametrize("every", [None, 2], ids=["kept", "recomputed"])


def place(error: RuntimeError) -> tuple[int, ...]:
    found = re.search(r"at layer (\d+), direction (\d+), step (\d+), sample (\d+)", str(error))
    assert found, error
    return tuple(int(group) for group in found.groups())


def make(kind: str, **options: Any) -> Any:
    torch.manual_seed(0)
    return getattr(rnnfast, kind)(3, 5, nan_policy="raise", **options)


@every
@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("kind", KINDS)
def test_states(kind: str, bad: float, grad: bool, every: int | None) -> None:
    options = {"nonlinearity": "relu"} if kind == "RNN" else {}
    if bad == float("inf") and kind != "RNN":
        bad = float("nan")  # gates saturate, states stay finite
    module = make(kind, num_layers=2, bidirectional=True, checkpoint_every=every, **options)
    x = torch.randn(7, 4, 3)
    with torch.set_grad_enabled(grad):
        module(x)
        x[4, 2, 1] = bad
        x[5, 1, 1] = bad
        with pytest.raises(RuntimeError, match="nan_policy='raise': the state . is not finite") as caught:
            module(x)
    assert place(caught.value) == (0, 0, 4, 2)  # direction 0 is looked at first
    module.nan_policy = "propagate"
    assert not bool(torch.isfinite(module(x)[0]).all())


@every
def test_states_of_the_reverse_direction_and_another_layer(every: int | None) -> None:
    module = make("GRU", num_layers=2, bidirectional=True, checkpoint_every=every)
    with torch.no_grad():
        module.weight_hh_l1_reverse[0, 0] = float("nan")
    with pytest.raises(RuntimeError) as caught:
        module(torch.randn(7, 4, 3))
    assert place(caught.value) == (1, 1, 6, 0)  # the first step that it visits


@every
def test_a_cell_state_may_overflow_behind_finite_outputs(every: int | None) -> None:
    module = make("LSTM", checkpoint_every=every)
    h, c = torch.zeros(1, 2, 5), torch.zeros(1, 2, 5)
    c[0, 1, 3] = float("inf")
    for grad in (True, False):
        with torch.set_grad_enabled(grad), pytest.raises(RuntimeError, match="the state c is not finite") as caught:
            module(torch.randn(3, 2, 3), (h, c))
        assert place(caught.value) == (0, 0, 0, 1)


@every
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_error_signals(kind: str, packed: bool, every: int | None) -> None:
    """The first on its way back; the loss itself is finite."""
    module = make(kind, bidirectional=True, checkpoint_every=every)
    x: Any = torch.randn(7, 4, 3)
    if packed:
        x = torch.nn.utils.rnn.pack_padded_sequence(x, torch.tensor([7, 5, 5, 2]))
    y = flat(module(x))[0]
    grad = torch.ones_like(y)
    rows = grad.view(-1, 10)
    row = (14 if packed else 4 * 4) + 2  # step 4, sample 2
    rows[row, 7] = float("nan")  # of the reverse direction
    with pytest.raises(RuntimeError, match="the error signal dL/dh is not finite") as caught:
        y.backward(grad, retain_graph=True)
    assert place(caught.value) == (0, 1, 4, 2)
    assert ("packed" in str(caught.value)) == packed
    rows[row, 7] = 1
    y.backward(grad)


def test_cells_and_compiled() -> None:
    cell = rnnfast.LSTMCell(3, 5, nan_policy="raise")
    x = torch.randn(4, 3)
    x[3, 0] = float("nan")
    for grad in (True, False):
        with torch.set_grad_enabled(grad), pytest.raises(RuntimeError, match="is not finite") as caught:
            cell(x)
        assert place(caught.value)[2:] == (0, 3)
    cell(x[:3])
