# SPDX-License-Identifier: Apache-2.0
"""nan_policy="raise": the first state, or error signal, that is not finite, by layer, direction, step and sample."""

import re
from typing import Any

import pytest
import torch
from torch.autograd import forward_ad

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
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("direction", [0, 1])
def test_a_final_cell_state_may_be_too_large_for_float16_alone(direction: int, packed: bool, every: int | None) -> None:
    """c is float32 from step to step, and grows by 1 at each, of which h is 1: 16 steps from float16's largest."""
    module = make("LSTM", checkpoint_every=every, bidirectional=True).half()
    with torch.no_grad():
        for name, weight in module.named_parameters():
            weight.fill_(50 if "bias_ih" in name else 0)
    x: Any = torch.zeros(20, 3, 3, dtype=torch.float16)
    lengths = [20, 17, 15]
    if packed:
        x = torch.nn.utils.rnn.pack_padded_sequence(x, torch.tensor(lengths))
    h, c = torch.zeros(2, 3, 5, dtype=torch.float16), torch.zeros(2, 3, 5, dtype=torch.float16)
    if packed:
        c[direction, 2, 1] = 65504
        assert float(module(x, (h, c))[1][1].detach()[direction, 2, 1]) == 65504  # 65519 is rounded to it
    c[direction, 1, 1] = 65504
    with pytest.raises(RuntimeError, match="the final state c is not finite") as caught:
        module(x, (h, c))
    last = 0 if direction else (17 if packed else 20) - 1
    assert place(caught.value) == (0, direction, last, 1)


def test_a_state_may_be_too_large_for_bfloat16_alone() -> None:
    module = make("RNN", nonlinearity="relu").bfloat16()
    with torch.no_grad():
        for weight in module.parameters():
            weight.zero_()
        module.bias_ih_l0[2] = largest = torch.finfo(torch.bfloat16).max
    x = torch.zeros(7, 4, 3, dtype=torch.bfloat16)
    assert float(module(x)[0][0, 0, 2]) == largest
    with torch.no_grad():
        module.bias_hh_l0[2] = largest / 2**8
    with pytest.raises(RuntimeError, match="the state h is not finite") as caught:
        module(x)
    assert place(caught.value) == (0, 0, 0, 0)


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
@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("bias", [8, 16])
def test_a_state_may_be_too_large_for_float16_alone(bias: int, grad: bool, every: int | None) -> None:
    """It is computed in float32: 2047 * 32 is float16's largest, 16 more round to infinity."""
    module = make("RNN", nonlinearity="relu", checkpoint_every=every).half()
    x = torch.zeros(7, 4, 3, dtype=torch.float16)
    x[4, 2, 1] = 32
    with torch.no_grad():
        for weight in module.parameters():
            weight.zero_()
        module.weight_ih_l0[2, 1], module.bias_ih_l0[2] = 2047, bias
    with torch.set_grad_enabled(grad):
        if bias < 16:
            assert float(module(x)[0][4, 2, 2]) == 65504
            return
        with pytest.raises(RuntimeError, match="the state h is not finite") as caught:
            module(x)
    assert place(caught.value) == (0, 0, 4, 2)


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


def where(error: RuntimeError) -> tuple[int, ...]:
    """Step, sample and slice of vmap."""
    found = re.search(r"step (\d+), sample (\d+)( of slice (\d+) of vmap|.*\(in slice (\d+) of vmap\))", str(error))
    assert found, error
    return int(found[1]), int(found[2]), int(found[4] or found[5])


@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_vmap_names_slice_and_sample(kind: str, grad: bool) -> None:
    module = make(kind, num_layers=2)
    x = torch.randn(3, 7, 4, 3)
    run = torch.func.vmap(lambda x: module(x)[0])
    with torch.set_grad_enabled(grad):
        y = run(x)
        bad = x.clone()
        bad[2, 4, 1] = float("nan")
        with pytest.raises(RuntimeError, match="the state . is not finite") as caught:
            run(bad)
    assert where(caught.value) == (4, 1, 2)
    if grad:
        signal = torch.ones_like(y)
        signal[1, 5, 3] = float("nan")
        with pytest.raises(RuntimeError, match="the error signal dL/dh is not finite") as caught:
            y.backward(signal)
        assert where(caught.value) == (5, 3, 1)


def test_nested_vmap_counts_slices_over_all_levels() -> None:
    module = make("GRU")
    x = torch.randn(2, 3, 7, 4, 3)
    x[1, 2, 4, 1] = float("nan")
    with pytest.raises(RuntimeError) as caught:
        torch.func.vmap(torch.func.vmap(lambda x: module(x)[0]))(x)
    assert where(caught.value) == (4, 1, 1 * 3 + 2)


def test_vmap_slice_by_slice_names_them() -> None:
    """Gradients of each slice, and a stack of weights: there is no larger batch."""
    module = make("GRU")
    x = torch.randn(3, 7, 4, 3)
    x[2, 4, 1] = float("nan")
    with pytest.raises(RuntimeError, match="the state h is not finite") as caught:
        torch.func.vmap(torch.func.grad(lambda x: module(x)[0].sum()))(x)
    assert where(caught.value) == (4, 1, 2)
    x[2, 4, 1] = 0
    scale = torch.ones(3, 7, 4, 5)
    scale[1, 6, 2] = float("inf")
    with pytest.raises(RuntimeError, match="the error signal dL/dh is not finite") as caught:
        torch.func.vmap(torch.func.grad(lambda x, s: (module(x)[0] * s).sum()))(x, scale)
    assert where(caught.value) == (6, 2, 1)
    weights = {name: torch.stack([p.detach()] * 3) for name, p in module.named_parameters()}
    weights["weight_hh_l0"][1, 0, 0] = float("nan")
    with pytest.raises(RuntimeError, match="the state h is not finite") as caught:
        torch.func.vmap(lambda w: torch.func.functional_call(module, w, (x[0],))[0])(weights)
    assert where(caught.value) == (0, 0, 1)


@pytest.mark.parametrize("kind", [*KINDS, "LSTMCell"])
def test_forward_mode_is_refused(kind: str) -> None:
    """It runs tensor operations in place of the kernels, which nothing checks."""
    module = rnnfast.LSTMCell(3, 5, nan_policy="raise") if kind == "LSTMCell" else make(kind)
    x = torch.randn(4, 3) if kind == "LSTMCell" else torch.randn(7, 4, 3)

    def f(x: torch.Tensor) -> torch.Tensor:
        return flat(module(x))[0].sum()

    message = "forward-mode differentiation with nan_policy='raise': expected 'propagate'"
    with pytest.raises(NotImplementedError, match=message):
        torch.func.jvp(f, (x,), (x,))
    with forward_ad.dual_level(), pytest.raises(NotImplementedError, match=message):
        module(forward_ad.make_dual(x, x))
    with pytest.raises(NotImplementedError, match=message):
        torch.func.jacfwd(torch.func.grad(f))(x)
    torch.func.grad(f)(x)
    module.nan_policy = "propagate"
    torch.func.jvp(f, (x,), (x,))


def test_double_backward() -> None:
    """First derivatives are checked as ever; those of them, which no kernel computes, are what they are without."""
    module = make("GRU")
    x = torch.randn(5, 2, 3, requires_grad=True)
    results = []
    for policy in ("raise", "propagate"):
        module.nan_policy = policy
        (first,) = torch.autograd.grad(module(x)[0].square().sum(), x, create_graph=True)
        results.append(torch.autograd.grad(first.square().sum(), x)[0])
    torch.testing.assert_close(*results, rtol=0, atol=0)
