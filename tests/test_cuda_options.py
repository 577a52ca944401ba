# SPDX-License-Identifier: Apache-2.0
"""Recomputation, checking and recording of modules on a GPU, against the same module on the CPU (and there, where the
tests themselves are tried). (The kernels' own part runs on the emulator too: test_cuda.py, test_cuda_checkpoint.py.)"""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

import rnnfast
from rnnfast.diagnostics import gradient_flow
from tests.cuda_devices import HERE, MODULE_DEVICES

KINDS = ["RNN", "LSTM", "GRU"]


def pair(kind: str, device: str, **options: Any) -> tuple[Any, Any, Tensor]:
    """A module on the CPU, the same on the GPU, and an input [T, B, I]."""
    torch.manual_seed(0)
    module = getattr(rnnfast, kind)(3, 37, num_layers=2, bidirectional=True, dtype=torch.float64, **options)
    return module, copy.deepcopy(module).to(device), torch.randn(11, 4, 3, dtype=torch.float64)


def gradients(module: Any, x: Tensor) -> list[Tensor]:
    packed = torch.nn.utils.rnn.pack_padded_sequence(x, torch.tensor([11, 9, 9, 2]))
    module(packed)[0].data.square().sum().backward()
    return [p.grad.cpu() for p in module.parameters()]


@pytest.mark.parametrize("device", MODULE_DEVICES)
@pytest.mark.parametrize("control", [{}, {"bptt_clip": ("value", 0.1), "bptt_steps": 3}, {"bptt_clip": ("norm", 0.5)}])
@pytest.mark.parametrize("every", [None, 4])
@pytest.mark.parametrize("kind", KINDS)
def test_recomputation_and_recording(kind: str, every: int | None, control: dict[str, Any], device: str) -> None:
    here, there, x = pair(kind, device, checkpoint_every=every, **control)
    with gradient_flow(here) as expected:
        want = gradients(here, x)
    with gradient_flow(there) as flow:
        got = gradients(there, x.to(device))
    torch.testing.assert_close(got, want)
    for name in ("dh", "dh_max", "dc", "dc_max", "clipped", "saturated"):
        torch.testing.assert_close(getattr(flow, name), getattr(expected, name), msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("device", MODULE_DEVICES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
@pytest.mark.parametrize("kind", KINDS)
def test_values_that_are_not_finite(kind: str, dtype: torch.dtype, device: str) -> None:
    _, there, x = pair(kind, device, nan_policy="raise")
    there, x = there.to(dtype), x.to(device, dtype)
    y, _ = there(x)
    grad = torch.ones_like(y)
    grad[4, 2, 40] = float("nan")  # of the reverse direction
    with pytest.raises(RuntimeError, match="dL/dh is not finite at layer 1, direction 1, step 4, sample 2"):
        y.backward(grad)
    x[5, 1, 0] = float("nan")
    with torch.no_grad(), pytest.raises(RuntimeError, match="is not finite at layer 0, direction 0, step 5, sample 1"):
        there(x)


@pytest.mark.parametrize("device", HERE)
def test_a_capture_is_refused(device: str) -> None:
    _, there, x = pair("LSTM", device, nan_policy="raise")
    x = x.to(device)
    graph = torch.cuda.CUDAGraph()
    with torch.no_grad():
        there(x)
        with (
            pytest.raises(RuntimeError, match="expected a stream that no CUDA graph is capturing"),
            torch.cuda.graph(graph),
        ):
            there(x)
