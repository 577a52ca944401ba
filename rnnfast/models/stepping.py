# SPDX-License-Identifier: Apache-2.0
"""A recurrent module fed one step or chunk at a time, on any device; and models set to eval mode for a while."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from rnnfast.stream import Stream

__all__ = ["Stepper", "evaluating"]


class Stepper:
    """Feeds a unidirectional recurrent module as its input arrives; the state stays inside.

    On the CPU it is a :class:`rnnfast.Stream` (a snapshot of the weights). On other devices, for which there is none,
    the module itself runs on each chunk with its state carried along.

    Args:
        module: an RNN, LSTM or GRU of rnnfast or torch.nn.
        batch_size: samples side by side.
    """

    def __init__(self, module: nn.Module, batch_size: int) -> None:
        self._module = module
        self._stream = Stream(module, batch_size) if next(module.parameters()).device.type == "cpu" else None
        self._state: Any = None

    @torch.no_grad()
    def __call__(self, x: Tensor) -> Tensor:
        """x [B, I] or [T, B, I] -> the last layer's output, [B, H] or [T, B, H]."""
        if self._stream is not None:
            return self._stream(x)
        y, self._state = self._module(x if x.dim() == 3 else x[None], self._state)
        return y if x.dim() == 3 else y[0]

    def reset(self) -> None:
        """Back to the zero state."""
        self._state = None
        if self._stream is not None:
            self._stream.reset()


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Eval mode without autograd; afterwards the module is in the mode that it was in."""
    before = module.training
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        module.train(before)
