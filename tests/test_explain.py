# SPDX-License-Identifier: Apache-2.0
"""rnnfast.explain for modules, cells, torch's own, accelerated ones and snapshots."""

import dataclasses
from typing import Any

import pytest
import torch
from torch import nn

import rnnfast
from tests.torchs import CELLS, LAYERS, packed

EVERY = [*LAYERS, *CELLS]


def x_for(module: Any) -> torch.Tensor:
    return torch.zeros((3, 2, 5) if hasattr(module, "num_layers") else (2, 5))


@pytest.mark.parametrize("name", EVERY)
def test_ours(name: str) -> None:
    ours = getattr(rnnfast, name)(5, 8)
    found = rnnfast.explain(ours, x_for(ours))
    assert found.path == "rnnfast"
    assert found.kernel.endswith("forward and BPTT")
    assert found.threads == 1
    assert "threads: a further one" in str(found) or torch.get_num_threads() == 1
    with torch.no_grad():
        assert rnnfast.explain(ours, x_for(ours)).kernel.endswith(" forward")
    assert "MFLOP" in found.predicted_cost
    away = rnnfast.explain(ours, x_for(ours), device="mps")
    assert (away.path, away.reasons) == ("torch", ["no rnnfast kernels for device mps"])
    assert f"torch's own {name}" in str(away)
    assert [f.name for f in dataclasses.fields(found)] == [
        "path", "kernel", "isa", "decomposition", "threads", "reasons", "predicted_cost",
    ]  # fmt: skip


@pytest.mark.parametrize("name", EVERY)
def test_torchs_and_accelerated(name: str) -> None:
    theirs = getattr(nn, name)(5, 8)
    found = rnnfast.explain(theirs, x_for(theirs))
    assert found.path == "torch"
    assert "not accelerated: rnnfast.accelerate(model)" in str(found)
    rnnfast.accelerate(theirs)
    found = rnnfast.explain(theirs, x_for(theirs))
    assert found.path == "rnnfast"
    assert f"an accelerated torch.nn.{name}" in str(found)
    rnnfast.restore(theirs)
    assert rnnfast.explain(theirs, x_for(theirs)).path == "torch"


@pytest.mark.parametrize("name", EVERY)
def test_snapshots(name: str) -> None:
    for module in (getattr(rnnfast, name)(5, 8), getattr(nn, name)(5, 8)):
        found = rnnfast.explain(rnnfast.freeze(module), x_for(module))
        assert found.path == "rnnfast"
        assert found.kernel.endswith(" forward")
        assert "frozen snapshot" in str(found)


@pytest.mark.parametrize("nonlinearity", ["tanh", "relu", "sigmoid"])
def test_the_cell_is_named(nonlinearity: str) -> None:
    for module in (rnnfast.RNN(5, 8, nonlinearity=nonlinearity), rnnfast.RNNCell(5, 8, nonlinearity=nonlinearity)):
        assert rnnfast.explain(module, x_for(module)).kernel.startswith(f"rnn_{nonlinearity} ")


def test_forms_of_input() -> None:
    """More work, more cost, whichever way it is laid out."""
    lstm = rnnfast.LSTM(64, 256, batch_first=True, proj_size=32)

    def cost(x: Any) -> float:
        return float(rnnfast.explain(lstm, x).predicted_cost.split()[0])

    assert cost(torch.zeros(4, 10, 64)) > cost(torch.zeros(2, 10, 64)) > cost(torch.zeros(10, 64))
    assert cost(packed([10, 10], 64)) == cost(torch.zeros(2, 10, 64))
    cell = rnnfast.GRUCell(64, 256)
    assert rnnfast.explain(cell, torch.zeros(64)).path == "rnnfast"


def test_dtypes() -> None:
    gru = rnnfast.GRU(5, 8, dtype=torch.bfloat16)
    found = rnnfast.explain(gru, torch.zeros(3, 2, 5, dtype=torch.bfloat16))
    assert found.path == "rnnfast"
    assert "torch.bfloat16 is converted" in str(found)
    assert "no rnnfast kernels for dtype torch.complex64" in str(
        rnnfast.explain(gru, torch.zeros(3, 2, 5, dtype=torch.complex64))
    )
    with torch.autocast("cpu", dtype=torch.float16):
        assert "torch.float16 is converted" in str(rnnfast.explain(rnnfast.GRU(5, 8), torch.zeros(3, 2, 5)))


def test_anything_else() -> None:
    with pytest.raises(TypeError, match=r"expected an rnnfast or torch.nn RNN, .* got Linear"):
        rnnfast.explain(nn.Linear(2, 2), torch.zeros(1, 1, 2))
    for op in (torch.ops.rnnfast.gru_layer, rnnfast.ops.LAYERS["gru"], rnnfast.functional.gru):
        with pytest.raises(TypeError, match="explain a module of the same sizes"):
            rnnfast.explain(op, torch.zeros(1, 1, 2))
    with pytest.raises(TypeError, match="x: expected a tensor or a PackedSequence, got tuple"):
        rnnfast.explain(rnnfast.GRU(5, 8), (torch.zeros(1, 1, 5),))


@pytest.mark.parametrize("device", ["mps", "xpu:1", torch.device("mps")])
def test_devices_that_are_not_there(device: Any) -> None:
    """GPUs: test_explain_cuda.py."""
    found = rnnfast.explain(rnnfast.LSTM(5, 8), torch.zeros(3, 2, 5), device=device)
    assert (found.path, found.reasons) == ("torch", [f"no rnnfast kernels for device {torch.device(device).type}"])
    assert rnnfast.explain(rnnfast.LSTM(5, 8), torch.zeros(3, 2, 5), device="cpu").path == "rnnfast"
    with pytest.raises(RuntimeError, match="nowhere"):
        rnnfast.explain(rnnfast.LSTM(5, 8), torch.zeros(3, 2, 5), device="nowhere")


@pytest.mark.parametrize("name", EVERY)
def test_a_forward_of_its_own(name: str) -> None:
    """What it calls is its own affair: neither path is claimed, and no advice that would not help."""
    kinds: list[Any] = [getattr(rnnfast, name), getattr(nn, name)]
    for kind, path in zip(kinds, ("unknown", "torch"), strict=True):

        class Own(kind):
            def forward(self, *args: Any) -> Any:
                return super().forward(*args)

        for module in (Own(5, 8), kind(5, 8)):
            if type(module) is kind:
                module.forward = lambda *args: None
            found = rnnfast.explain(module, x_for(module))
            assert found.path == path
            assert "forward" in found.reasons[0]
            assert "rnnfast.accelerate" not in str(found)


@pytest.mark.parametrize("name", CELLS)
def test_sizes_of_zero(name: str) -> None:
    """Torch's own cell runs then."""
    for sizes, x in (((0, 4), torch.zeros(2, 0)), ((5, 0), torch.zeros(2, 5))):
        cell = getattr(rnnfast, name)(*sizes)
        found = rnnfast.explain(cell, x)
        assert (found.path, found.reasons) == ("torch", ["no rnnfast kernels for sizes of 0"])


@pytest.mark.parametrize("name", EVERY)
def test_wrong_input_raises_as_forward(name: str) -> None:
    ours = getattr(rnnfast, name)(5, 8)
    x = x_for(ours)
    wrong: list[Any] = [x[..., :4], x[None, None], x.double(), x[0, 0, 0] if x.dim() == 3 else x[0, 0]]
    if x.dim() == 3:
        wrong += [x[0, 0], packed([2, 1], 4), packed([2, 1], 5, torch.float64)]
    for given in wrong:
        with pytest.raises((ValueError, RuntimeError)) as expected:
            ours(given)
        for module in (ours, rnnfast.freeze(ours)):
            with pytest.raises(type(expected.value)) as got:
                rnnfast.explain(module, given)
            assert type(got.value) is type(expected.value)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert rnnfast.explain(ours, x.bfloat16()).path == "rnnfast"


def test_stacks_and_bptt() -> None:
    stack = rnnfast.LSTM(64, 128, 2)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with torch.no_grad():
            assert (
                "2 layers as a wavefront of 2 stages" in rnnfast.explain(stack, torch.zeros(1000, 1, 64)).decomposition
            )
            long = rnnfast.explain(stack, torch.zeros(20000, 16, 64)).decomposition
            assert "steps at a time through all 2 layers" in long
        assert "BPTT by " in rnnfast.explain(stack, torch.zeros(1000, 1, 64)).decomposition
    finally:
        torch.set_num_threads(threads)
