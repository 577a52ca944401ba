# SPDX-License-Identifier: Apache-2.0
"""Small random arguments of the layer ops, and the layer as a function of its tensors alone: ours and plain torch's."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rnnfast.ops import LAYERS
from tests import composite
from tests.reference import CELLS

BATCH_SIZES = (3, 3, 1)

# What derivatives are checked with, for each cell.
OPTIONS: list[dict[str, Any]] = [
    {},
    {"T": 1},
    {"D": 2},
    {"bias": False},
    {"h0": False, "c0": False},
    {"h0": False},
    {"packed": True},
    {"packed": True, "D": 2, "bias": False},
]
LSTM_OPTIONS: list[dict[str, Any]] = [
    {"c0": False},
    {"proj": 1},
    {"proj": 3},
    {"proj": 1, "D": 2, "packed": True, "bias": False, "h0": False},
]
EVERY = [(cell, o) for cell in CELLS for o in OPTIONS + (LSTM_OPTIONS if CELLS[cell].has_cell else [])]
IDS = [f"{cell}-{'-'.join(f'{k}={v}' for k, v in o.items()) or 'plain'}" for cell, o in EVERY]


@dataclass
class Arguments:
    """Of the op rnnfast::<cell>_layer, without `save`."""

    cell: str
    x: Tensor
    h0: Tensor | None
    c0: Tensor | None
    weights: list[Tensor]
    batch_sizes: Tensor | None
    has_biases: bool
    bidirectional: bool

    @property
    def op(self) -> tuple[Any, ...]:
        return (self.x, self.h0, self.c0, self.weights, self.batch_sizes, self.has_biases, self.bidirectional)

    @property
    def tensors(self) -> list[Tensor]:
        """All that can have a gradient: x, the states given, the weights."""
        return [self.x, *(s for s in (self.h0, self.c0) if s is not None), *self.weights]

    @property
    def names(self) -> list[str]:
        states = [n for n, s in (("h0", self.h0), ("c0", self.c0)) if s is not None]
        return ["x", *states, *(f"weights[{i}]" for i in range(len(self.weights)))]

    def function(self, layer: Callable[..., Sequence[Tensor]]) -> Callable[..., tuple[Tensor, ...]]:
        """A function of `tensors` that returns y, h_n and, where there is one, c_n."""
        given = [s is not None for s in (self.h0, self.c0)]

        def f(x: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
            left = list(rest)
            h0, c0 = (left.pop(0) if g else None for g in given)
            out = layer(self.cell, x, h0, c0, left, self.batch_sizes, self.has_biases, self.bidirectional)
            return tuple(out[: 3 if CELLS[self.cell].has_cell else 2])

        return f

    @property
    def ours(self) -> Callable[..., tuple[Tensor, ...]]:
        return self.function(lambda cell, *args: LAYERS[cell](*args, False))

    @property
    def plain(self) -> Callable[..., tuple[Tensor, ...]]:
        """In torch's differentiable operations."""
        return self.function(composite.layer)


def arguments(
    cell: str = "lstm",
    T: int = 3,
    B: int = 2,
    I: int = 3,
    H: int = 2,
    D: int = 1,
    proj: int = 0,
    bias: bool = True,
    packed: bool = False,
    h0: bool = True,
    c0: bool = True,
    dtype: torch.dtype = torch.float64,
    grad: bool = True,
    seed: int = 0,
) -> Arguments:
    """Normally distributed; packed: T and B as BATCH_SIZES has them."""
    gen = torch.Generator().manual_seed(seed)
    if packed:
        T, B = len(BATCH_SIZES), BATCH_SIZES[0]

    def rand(*shape: int) -> Tensor:
        return torch.randn(shape, generator=gen, dtype=torch.float64).to(dtype).requires_grad_(grad)

    x = rand(sum(BATCH_SIZES), I) if packed else rand(T, B, I)
    G, P = CELLS[cell].gates, proj or H
    kinds = [(G * H, I), (G * H, P)] + [(G * H,)] * (2 * bias) + [(P, H)] * bool(proj)
    return Arguments(
        cell,
        x,
        rand(D, B, P) if h0 else None,
        rand(D, B, H) if c0 and CELLS[cell].has_cell else None,
        [rand(*k) for _ in range(D) for k in kinds],
        torch.tensor(BATCH_SIZES) if packed else None,
        bias,
        D == 2,
    )
