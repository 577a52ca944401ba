# SPDX-License-Identifier: Apache-2.0
"""Loads the compiled ops and gives them their fake implementations (shapes for torch.compile and meta tensors).

Shapes and meaning of every argument: docs/architecture.md, "The ops".
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from rnnfast.specs import CELLS, CellSpec

try:
    from rnnfast import _C
except ImportError as error:
    raise ImportError(
        f"rnnfast's compiled core could not be loaded ({error}). In a checkout, build it with `make setup`; "
        "it must be built for the Python and torch that run it."
    ) from error

__all__ = ["LAYERS", "LAYERS_BACKWARD", "_C", "direct_cell", "direct_layers"]

LAYERS: dict[str, Any] = {name: getattr(torch.ops.rnnfast, f"{name}_layer").default for name in CELLS}
LAYERS_BACKWARD: dict[str, Any] = {name: getattr(torch.ops.rnnfast, f"{name}_layer_backward").default for name in CELLS}

# Past the dispatcher, for plain tensors without grad; None where anything else is the case.
direct_layers = _C.direct_layers
direct_cell = _C.direct_cell

_HALF = (torch.float16, torch.bfloat16)


def _check_alike(op: str, x: Tensor, others: dict[str, Tensor | None]) -> None:
    """The ops' own boundary check, for tensors without storage."""
    for name, tensor in others.items():
        if tensor is not None and tensor.dtype != x.dtype:
            raise RuntimeError(f"{op}: {name}: expected dtype {x.dtype} as x, got {tensor.dtype}")


def _batch(x: Tensor, batch_sizes: Tensor | None, states: Sequence[Tensor | None], needed: bool = True) -> Any:
    """B. Packed, it is batch_sizes[0], a value that a fake tensor lacks: any state tells it. Beside meta it is real."""
    if batch_sizes is None:
        return x.shape[1]
    for state in states:
        if state is not None:
            return state.shape[1]
    if not needed:
        return 0
    if batch_sizes.is_cpu and not isinstance(batch_sizes, FakeTensor):
        return int(batch_sizes[0])
    return torch.library.get_ctx().new_dynamic_size()


def _kept_states(steps: Any, every: int) -> Any:
    """With recomputation, of so many steps; every: -1 for sqrt(steps), rounded up."""
    if not isinstance(steps, int):
        # A size of its own: as a term of T it would tie T to the example's where torch asks whether it is 0 or 1.
        return torch.library.get_ctx().new_dynamic_size()
    return (steps - 1) // (every if every > 0 else math.isqrt(max(0, steps - 1)) + 1)


def _register_fakes(spec: CellSpec) -> None:
    op = f"rnnfast::{spec.name}_layer"

    def layer(
        x: Tensor,
        h0: Tensor | None,
        c0: Tensor | None,
        weights: Sequence[Tensor],
        batch_sizes: Tensor | None,
        has_biases: bool,
        bidirectional: bool,
        save: bool,
        limit: float = 0.0,
        bptt: Sequence[int] = (),
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        _check_alike(op, x, {"h0": h0, "c0": c0} | {f"weights[{i}]": w for i, w in enumerate(weights)})
        directions = 2 if bidirectional else 1
        hidden = weights[0].shape[0] // spec.gates
        outputs = weights[1].shape[1]
        batch = _batch(x, batch_sizes, (h0, c0))
        rows = x.shape[0] if batch_sizes is not None else x.shape[0] * x.shape[1]
        memory = torch.float32 if x.dtype in _HALF else x.dtype
        y = x.new_empty((*x.shape[:-1], directions * outputs))
        h_n = x.new_empty((directions, batch, outputs))
        c_n = x.new_empty((directions, batch, hidden) if spec.has_cell else (0,))
        every = bptt[2] if bptt else 0
        saved_shape: Any = (directions, rows, spec.saved * hidden) if save and spec.saved else (0,)
        cells_shape: Any = (directions, rows, hidden)
        if save and every:  # states before every segment but the first
            steps = x.shape[0] if batch_sizes is None else batch_sizes.shape[0]
            kept = (directions, _kept_states(steps, every), batch)
            saved_shape, cells_shape = (*kept, outputs), (*kept, hidden)
        saved = x.new_empty(saved_shape, dtype=memory)
        cells = x.new_empty(cells_shape if save and spec.has_cell else (0,), dtype=memory)
        return y, h_n, c_n, saved, cells

    def backward(
        grad_y: Tensor | None,
        grad_h_n: Tensor | None,
        grad_c_n: Tensor | None,
        x: Tensor,
        h0: Tensor | None,
        c0: Tensor | None,
        weights: Sequence[Tensor],
        batch_sizes: Tensor | None,
        has_biases: bool,
        bidirectional: bool,
        y: Tensor,
        saved: Tensor,
        cells: Tensor,
        output_mask: Sequence[bool],
        limit: float = 0.0,
        bptt: Sequence[int] = (),
    ) -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:
        directions = 2 if bidirectional else 1
        hidden = weights[0].shape[0] // spec.gates
        asked_for = [*output_mask[:2], output_mask[2] and spec.has_cell, *output_mask[3:]]
        wanted = asked_for[1] or asked_for[2]
        batch = _batch(x, batch_sizes, (h0, c0, grad_h_n, grad_c_n), wanted)
        shapes: list[Any] = [x.shape, (directions, batch, weights[1].shape[1]), (directions, batch, hidden)]
        shapes += [w.shape for w in weights]
        grads = [x.new_empty(shape if asked else (0,)) for shape, asked in zip(shapes, asked_for, strict=True)]
        return grads[0], grads[1], grads[2], grads[3:]

    torch.library.register_fake(op, layer)
    torch.library.register_fake(f"{op}_backward", backward)


for _spec in CELLS.values():
    _register_fakes(_spec)
