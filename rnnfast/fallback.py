# SPDX-License-Identifier: Apache-2.0
"""torch's own implementation of the same layers, for devices and dtypes without kernels."""

import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from rnnfast.architectures import NOT_BUILT, why_no_code
from rnnfast.ops import _C
from rnnfast.specs import CellSpec

__all__ = ["KERNEL_DTYPES", "cell", "layers", "warn", "why_no_kernel", "why_not_on"]

KERNEL_DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
_warned: set[str] = set()
_asked: dict[int, str | None] = {}  # of CUDA devices by index: asking the driver costs microseconds a call


def why_no_kernel(x: Tensor) -> str | None:
    """Why rnnfast has no kernel for this input, or None where it has one."""
    if not (x.is_cpu or x.is_meta):
        reason = why_not_on(x.device.index or 0) if x.is_cuda else f"no rnnfast kernels for device {x.device.type}"
        if reason is not None:
            return reason
    if x.dtype not in KERNEL_DTYPES:
        return f"no rnnfast kernels for dtype {x.dtype}"
    if x.layout is not torch.strided:
        return f"no rnnfast kernels for layout {x.layout}"
    return None


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def why_not_on(index: int) -> str | None:
    """Why this build runs nothing on a CUDA device of this machine, or None where it does.

    None too where CUDA is not initialised: then x is a fake tensor, which may stand for a device of another machine.
    """
    if index not in _asked:
        built = _C.cuda_architectures()
        if built and not torch.cuda.is_initialized():
            return None
        _asked[index] = why_no_code(built, torch.cuda.get_device_capability(index)) if built else NOT_BUILT
    return _asked[index]


def warn(reason: str, spec: CellSpec, label: str) -> None:
    """Warns once for each reason, at the line that called the module or function."""
    if reason in _warned or torch.compiler.is_compiling():
        return
    _warned.add(reason)
    level, frame = 1, sys._getframe(0)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] in ("rnnfast", "torch"):
        level, frame = level + 1, frame.f_back
    what = f"torch's own {label}" if spec.torch_name else f"{label} in torch's operations, step by step"
    warnings.warn(f"rnnfast: {reason}; running {what}", stacklevel=level)


def layers(
    spec: CellSpec,
    x: Tensor,
    batch_sizes: Tensor | None,
    h0: Tensor | None,
    c0: Tensor | None,
    weights: Sequence[Tensor],
    *,
    has_biases: bool,
    num_layers: int,
    dropout: float,
    training: bool,
    bidirectional: bool,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """As :func:`rnnfast.functional.run_layers`, on torch's implementation."""
    rows = num_layers * (2 if bidirectional else 1)
    batch = x.shape[1] if batch_sizes is None else int(batch_sizes[0])
    per_direction = len(weights) // rows
    if h0 is None:
        h0 = _zeros(x, rows, batch, weights[1].shape[1])
    if c0 is None and spec.has_cell:
        c0 = _zeros(x, rows, batch, weights[0].shape[0] // spec.gates)
    if spec.torch_name is None:
        return _composite(
            spec, x, batch_sizes, h0, weights, per_direction, has_biases, dropout, training, bidirectional
        )
    function: Callable[..., Any] = getattr(torch._VF, spec.torch_name)
    hx = (h0, c0) if spec.has_cell else h0
    options = (has_biases, num_layers, dropout, training, bidirectional)
    if batch_sizes is None:
        result = function(x, hx, list(weights), *options, False)
    else:
        result = function(x, batch_sizes, hx, list(weights), *options)
    return result[0], result[1], result[2] if spec.has_cell else None


def cell(
    spec: CellSpec,
    x: Tensor,
    h: Tensor | None,
    c: Tensor | None,
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Tensor | None,
    b_hh: Tensor | None,
) -> tuple[Tensor, Tensor | None]:
    """One step on torch's implementation: x [B, I], h and c [B, H] -> the new h, c."""
    if h is None:
        h = _zeros(x, x.shape[0], w_hh.shape[1])
    if spec.torch_name is None:
        return _activation(spec)(F.linear(x, w_ih, b_ih) + F.linear(h, w_hh, b_hh)), None
    function: Callable[..., Any] = getattr(torch._VF, f"{spec.torch_name}_cell")
    if not spec.has_cell:
        return function(x, h, w_ih, w_hh, b_ih, b_hh), None
    if c is None:
        c = torch.zeros_like(h)
    h_n, c_n = function(x, (h, c), w_ih, w_hh, b_ih, b_hh)
    return h_n, c_n


def _zeros(x: Tensor, *shape: int) -> Tensor:
    """As x's, but dense, whatever x is."""
    return torch.zeros(shape, dtype=x.dtype, device=x.device)


def _activation(spec: CellSpec) -> Callable[[Tensor], Tensor]:
    function: Callable[[Tensor], Tensor] = getattr(torch, str(spec.nonlinearity))
    return function


def _composite(
    spec: CellSpec,
    x: Tensor,
    batch_sizes: Tensor | None,
    h0: Tensor,
    weights: Sequence[Tensor],
    per_direction: int,
    has_biases: bool,
    dropout: float,
    training: bool,
    bidirectional: bool,
) -> tuple[Tensor, Tensor, None]:
    """An Elman stack in torch's operations, step by step: what torch itself lacks. Differentiable, not fast."""
    sizes = [x.shape[1]] * x.shape[0] if batch_sizes is None else batch_sizes.tolist()
    directions = 2 if bidirectional else 1
    flat = x.flatten(0, 1) if batch_sizes is None else x
    finals: list[Tensor] = []
    num_layers = h0.shape[0] // directions
    for layer in range(num_layers):
        outputs = []
        for direction in range(directions):
            index = layer * directions + direction
            w = weights[index * per_direction : (index + 1) * per_direction]
            b_ih, b_hh = (w[2], w[3]) if has_biases else (None, None)
            gates = F.linear(flat, w[0], b_ih).split(sizes)
            y, h_n = _elman_direction(_activation(spec), gates, sizes, h0[index], w[1], b_hh, direction == 1)
            outputs.append(y)
            finals.append(h_n)
        flat = torch.cat(outputs, 1) if bidirectional else outputs[0]
        if dropout and layer != num_layers - 1:
            flat = F.dropout(flat, dropout, training)
    y = flat.unflatten(0, (x.shape[0], x.shape[1])) if batch_sizes is None else flat
    return y, torch.stack(finals), None


def _elman_direction(
    activation: Callable[[Tensor], Tensor],
    gates: Sequence[Tensor],
    sizes: Sequence[int],
    h0: Tensor,
    w_hh: Tensor,
    b_hh: Tensor | None,
    reverse: bool,
) -> tuple[Tensor, Tensor]:
    """One direction over its rows: a list of [B_t, H] per step -> y [N, H], h_n [B, H]."""
    steps = range(len(sizes))
    h = h0
    outputs: list[Tensor] = [h0] * len(sizes)
    for t in reversed(steps) if reverse else steps:
        n = sizes[t]
        step = activation(gates[t] + F.linear(h[:n], w_hh, b_hh))
        outputs[t] = step
        # Forward, rows that have ended keep their last state; in reverse, rows not begun keep their first.
        h = torch.cat([step, h[n:]]) if n < h.shape[0] else step
    return torch.cat(outputs), h
