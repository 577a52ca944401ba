# SPDX-License-Identifier: Apache-2.0
"""The checks that torch.nn's recurrent modules make of input and state, with its exception types and messages."""

from typing import Any

import torch
from torch import Tensor

from rnnfast.specs import CellSpec

__all__ = ["check_input", "check_rank", "check_size", "check_state", "check_state_ranks"]


def check_input(spec: CellSpec, x: Tensor, batch_sizes: Tensor | None, dtype: torch.dtype, input_size: int) -> None:
    """torch.nn's checks of the input's dtype and sizes."""
    if x.dtype != dtype and not torch._C._is_any_autocast_enabled():
        # torch.nn.LSTM does not check packed input; its kernels then raise RuntimeError.
        kind = RuntimeError if spec.has_cell and batch_sizes is not None else ValueError
        raise kind(
            f"RNN input dtype ({x.dtype}) does not match weight dtype ({dtype}). "
            f"Convert input: input.to({dtype}), or convert model: model.to({x.dtype})"
        )
    dims = 2 if batch_sizes is not None else 3
    if x.dim() != dims:
        raise RuntimeError(f"input must have {dims} dimensions, got {x.dim()}")
    if x.shape[-1] != input_size:
        raise RuntimeError(f"input.size(-1) must be equal to input_size. Expected {input_size}, got {x.shape[-1]}")


def check_rank(spec: CellSpec, dims: int) -> None:
    """torch.nn's check of the rank of dense input."""
    if dims != 3 and dims != 2:
        kind = "D tensor" if spec.label == "RNN" else "D"
        raise ValueError(f"{spec.label}: Expected input to be 2D or 3D, got {dims}{kind} instead")


def check_state_ranks(spec: CellSpec, hx: Any, batched: bool) -> Any:
    """The states of dense input have its rank; unbatched ones come back with a batch of one."""
    dims = 3 if batched else 2
    kind = "batched 3-D" if batched else "unbatched 2-D"
    if spec.has_cell:
        if hx[0].dim() != dims or hx[1].dim() != dims:
            raise RuntimeError(
                f"For {kind} input, hx and cx should also be {dims}-D but got "
                f"({hx[0].dim()}-D, {hx[1].dim()}-D) tensors"
            )
        return hx if batched else (hx[0].unsqueeze(1), hx[1].unsqueeze(1))
    if hx.dim() != dims:
        raise RuntimeError(f"For {kind} input, hx should also be {dims}-D but got {hx.dim()}-D tensor")
    return hx if batched else hx.unsqueeze(1)


def check_state(
    spec: CellSpec, x: Tensor, hx: Any, expected: tuple[int, int, int], hidden_size: int
) -> tuple[Tensor | None, Tensor | None]:
    """h0, c0 of the expected sizes [L*D, B, P] (c0: H), on x's device."""
    if hx is None:
        return None, None
    if spec.has_cell:
        if isinstance(hx, Tensor):
            raise TypeError("lstm: hx: expected a tuple (h_0, c_0) of two tensors, got one tensor")
        if len(hx) != 2:
            raise RuntimeError(f"lstm expects two hidden states, got {len(hx)}")
        h0, c0 = hx
        check_size(h0, expected, "Expected hidden[0] size {}, got {}")
        check_size(c0, (expected[0], expected[1], hidden_size), "Expected hidden[1] size {}, got {}")
    else:
        h0, c0 = hx, None
        check_size(h0, expected, "Expected hidden size {}, got {}")
    if h0.device != x.device or (c0 is not None and c0.device != x.device):
        found = h0.device if h0.device != x.device else c0.device
        raise RuntimeError(
            "Input and hidden tensors are not at the same device, "
            f"found input tensor at {x.device} and hidden tensor at {found}"
        )
    return h0, c0


def check_size(state: Tensor, expected: tuple[int, int, int], message: str) -> None:
    """torch.nn's check of a state's size."""
    if state.shape != expected:
        raise RuntimeError(message.format(tuple(expected), list(state.shape)))
