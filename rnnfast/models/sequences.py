# SPDX-License-Identifier: Apache-2.0
"""Padded batches and what runs inside the models: packed sequences, in which padding does not exist."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

__all__ = ["Lengths", "Steps", "check_lengths", "each_step", "mask_of", "pack", "rows", "unpack"]

Lengths = Tensor | Sequence[int] | None
Steps = Tensor | PackedSequence  # [T, B, ...], or its rows that are not padding: [N, ...]


def check_lengths(who: str, lengths: Lengths, steps: int, batch: int, least: int = 1) -> Tensor | None:
    """Lengths as an int64 tensor [B] on the CPU.

    Raises:
        ValueError: not B integers from `least` to T.
    """
    if lengths is None:
        return None
    result = torch.as_tensor(lengths)
    if result.dtype == torch.bool or result.is_floating_point() or result.shape != (batch,):
        raise ValueError(f"{who}: lengths: expected {batch} integers, one a sample, got {_describe(result)}")
    result = result.to("cpu", torch.int64)
    wrong = ((result < least) | (result > steps)).nonzero()
    if len(wrong):
        b = int(wrong[0])
        what = "an empty sequence" if result[b] == 0 else str(int(result[b]))
        raise ValueError(f"{who}: lengths: expected {least} to {steps}, got {what} for sample {b}")
    return result


def pack(who: str, x: Tensor, lengths: Lengths, dims: int) -> tuple[Steps, Tensor | None]:
    """A batch [T, B, ...] of `dims` dimensions, packed where there are lengths; and the lengths.

    Raises:
        ValueError: another rank, no steps or no samples; lengths as for check_lengths.
    """
    if x.dim() != dims:
        shape = "[T, B]" if dims == 2 else "[T, B, F]"
        raise ValueError(f"{who}: input: expected {shape}, got {_describe(x)}")
    if x.shape[0] == 0 or x.shape[1] == 0:
        raise ValueError(f"{who}: input: expected at least one step and one sample, got {_describe(x)}")
    checked = check_lengths(who, lengths, x.shape[0], x.shape[1])
    if checked is None:
        return x, None
    return pack_padded_sequence(x, checked, enforce_sorted=False), checked


def each_step(function: Callable[[Tensor], Any], steps: Steps) -> Any:
    """A function of the last dimension, applied to every step that is not padding."""
    if isinstance(steps, PackedSequence):
        return steps._replace(data=function(steps.data))
    return function(steps)


def rows(steps: Steps) -> Tensor:
    """All steps that are not padding, one after another: [N, ...]."""
    return steps.data if isinstance(steps, PackedSequence) else steps.flatten(0, 1)


def unpack(steps: Steps, total: int, value: float = 0.0) -> Tensor:
    """Back to [T, B, ...], T = total, with `value` in the padding."""
    if isinstance(steps, PackedSequence):
        return pad_packed_sequence(steps, padding_value=value, total_length=total)[0]
    return steps


def mask_of(lengths: Tensor | None, steps: int, batch: int, device: torch.device) -> Tensor:
    """[T, B], true where there is a step."""
    if lengths is None:
        return torch.ones(steps, batch, dtype=torch.bool, device=device)
    return torch.arange(steps, device=device)[:, None] < lengths.to(device)


def _describe(x: Tensor) -> str:
    return f"{list(x.shape)} of {str(x.dtype).removeprefix('torch.')}"
