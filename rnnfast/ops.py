# SPDX-License-Identifier: Apache-2.0
"""Loads the compiled ops and gives them their fake implementations (shapes for torch.compile and meta tensors).

Shapes and meaning of every argument: docs/architecture.md, "The ops".
"""

from collections.abc import Sequence

import torch
from torch import Tensor

try:
    from rnnfast import _C
except ImportError as error:
    raise ImportError(
        f"rnnfast's compiled core could not be loaded ({error}). In a checkout, build it with `make setup`; "
        "it must be built for the Python and torch that run it."
    ) from error

__all__ = ["_C", "lstm_layer", "lstm_layer_backward"]

lstm_layer = torch.ops.rnnfast.lstm_layer.default
lstm_layer_backward = torch.ops.rnnfast.lstm_layer_backward.default


@torch.library.register_fake("rnnfast::lstm_layer")  # type: ignore[untyped-decorator]
def _lstm_layer_fake(
    x: Tensor,
    h0: Tensor | None,
    c0: Tensor | None,
    weights: Sequence[Tensor],
    batch_sizes: Tensor | None,
    has_biases: bool,
    bidirectional: bool,
    save: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    directions = 2 if bidirectional else 1
    hidden = weights[1].shape[1]
    batch: int | torch.SymInt
    if batch_sizes is None:
        steps, batch = x.shape[0], x.shape[1]
        rows = steps * batch
        y = x.new_empty((steps, batch, directions * hidden))
    else:
        rows = x.shape[0]
        # The batch is batch_sizes[0], a value that a fake tensor lacks: h0 or c0 tells it where given.
        state = h0 if h0 is not None else c0
        batch = state.shape[1] if state is not None else torch.library.get_ctx().new_dynamic_size()
        y = x.new_empty((rows, directions * hidden))
    h_n = x.new_empty((directions, batch, hidden))
    c_n = x.new_empty((directions, batch, hidden))
    gates = x.new_empty((directions, rows, 4 * hidden) if save else (0,))
    cells = x.new_empty((directions, rows, hidden) if save else (0,))
    return y, h_n, c_n, gates, cells


@torch.library.register_fake("rnnfast::lstm_layer_backward")  # type: ignore[untyped-decorator]
def _lstm_layer_backward_fake(
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
    gates: Tensor,
    cells: Tensor,
    output_mask: Sequence[bool],
) -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:
    directions = 2 if bidirectional else 1
    hidden = weights[1].shape[1]
    batch: int | torch.SymInt
    if batch_sizes is None:
        batch = x.shape[1]
    else:
        states = [s for s in (h0, c0, grad_h_n, grad_c_n) if s is not None]
        wanted = output_mask[1] or output_mask[2]
        batch = states[0].shape[1] if states else torch.library.get_ctx().new_dynamic_size() if wanted else 0
    state = (directions, batch, hidden)
    shapes = [x.shape, state, state, *(w.shape for w in weights)]
    grads = [x.new_empty(shape if wanted else (0,)) for shape, wanted in zip(shapes, output_mask, strict=True)]
    return grads[0], grads[1], grads[2], grads[3:]
