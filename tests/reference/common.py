# SPDX-License-Identifier: Apache-2.0
"""What the NumPy references of all cells share: rows and steps, a layer's directions, the forms of weights and results.

T time steps, B batch, I input size, H hidden size, P output size (H without projection), G gates, D directions,
N rows = sum(batch_sizes). Rows are in torch's packed order; a dense sequence has batch_sizes [B] * T.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x)), without overflow."""
    e = np.exp(-np.abs(x))
    return np.where(x < 0, e, 1.0) / (1.0 + e)


@dataclass
class Weights:
    """One direction: w_ih [G*H, I], w_hh [G*H, P], b_ih and b_hh [G*H] (zeros without biases), w_hr [P, H] or None.

    Also the gradients with respect to them.
    """

    w_ih: Array
    w_hh: Array
    b_ih: Array
    b_hh: Array
    w_hr: Array | None = None


@dataclass(frozen=True)
class Control:
    """What is done to the error signal: clip "value", "norm" or None, at a limit; cut every so many steps, or never."""

    clip: str | None = None
    limit: float = 0.0
    steps: int | None = None

    def limited(self, signal: Array) -> Array:
        """A step's signal [n, features], limited by element or by sample."""
        if self.clip == "value":
            return np.clip(signal, -self.limit, self.limit)
        if self.clip == "norm":
            norms = np.sqrt((signal**2).sum(axis=1, keepdims=True))
            return np.where(norms > self.limit, signal * (self.limit / np.maximum(norms, 1e-300)), signal)
        return signal

    def passes(self, p: int, n: int, batch_sizes: list[int], reverse: bool) -> Array:
        """[n, 1]: 0 for samples at whose step p (in processing order, of the first n samples) the signal ends, else 1.

        A sample of length T_b visits its own steps 0 ... T_b - 1; nothing passes from its step t to t - 1 where
        (T_b - t) mod steps = 0 and t >= 1.
        """
        passes = np.ones((n, 1))
        for b in range(n):
            length = sum(size > b for size in batch_sizes)
            t = p - (len(batch_sizes) - length) if reverse else p
            if self.steps is not None and t >= 1 and (length - t) % self.steps == 0:
                passes[b] = 0
        return passes


FREE = Control()


@dataclass
class Scan:
    """What one direction's forward pass leaves."""

    y: Array  # [N, P]
    h_n: Array  # [B, P]
    c_n: Array  # [B, H]; [0] without a cell state
    h_prev: Array  # [N, P], the state each row started from
    kept: Any  # what the cell's own backward pass wants besides


@dataclass
class ScanGradients:
    """dL/d of x [N, I], h0 [B, P], c0 [B, H] ([0] without a cell state) and the weights."""

    x: Array
    h0: Array
    c0: Array
    weights: Weights
    norms: Array  # [N, 2]: of each row's total dL/dh and dL/dc, before they are limited (0 without a cell state)


class Cell(Protocol):
    """A cell's reference: one direction forward, and BPTT for it."""

    gates: int
    has_cell: bool

    def scan_forward(self, x: Array, h0: Array, c0: Array, w: Weights, batch_sizes: list[int], reverse: bool) -> Scan:
        """x [N, I], h0 [B, P], c0 [B, H] (unused without a cell state); step t has the first batch_sizes[t] samples."""
        ...

    def scan_backward(
        self,
        grad_y: Array,
        grad_h_n: Array,
        grad_c_n: Array,
        x: Array,
        w: Weights,
        scan: Scan,
        batch_sizes: list[int],
        reverse: bool,
        control: Control,
    ) -> ScanGradients:
        """Processing order backwards. grad_y [N, P], grad_h_n [B, P], grad_c_n [B, H] (unused without a cell state)."""
        ...


def steps(batch_sizes: list[int], reverse: bool) -> list[tuple[slice, int]]:
    """(its rows, active samples) of each time step, in processing order."""
    ends = np.cumsum(batch_sizes)
    found = [(slice(int(end) - n, int(end)), n) for end, n in zip(ends, batch_sizes, strict=True)]
    return found[::-1] if reverse else found


@dataclass
class Layer:
    """A layer with all its directions: y [N, D*P], h_n [D, B, P], c_n [D, B, H] ([0] without a cell state)."""

    y: Array
    h_n: Array
    c_n: Array
    scans: list[Scan]


def layer_forward(cell: Cell, x: Array, h0: Array, c0: Array, weights: list[Weights], batch_sizes: list[int]) -> Layer:
    """x [N, I], h0 [D, B, P], c0 [D, B, H]. Direction 1 runs from the last step to the first."""
    scans = [cell.scan_forward(x, h0[d], c0[d], w, batch_sizes, d == 1) for d, w in enumerate(weights)]
    return Layer(
        np.concatenate([s.y for s in scans], axis=1),
        np.stack([s.h_n for s in scans]),
        np.stack([s.c_n for s in scans]) if cell.has_cell else np.zeros(0),
        scans,
    )


def layer_backward(
    cell: Cell,
    grad_y: Array,
    grad_h_n: Array,
    grad_c_n: Array,
    x: Array,
    weights: list[Weights],
    layer: Layer,
    batch_sizes: list[int],
    control: Control = FREE,
) -> list[ScanGradients]:
    """Of each direction; dL/dx is the sum of theirs. grad_y [N, D*P], grad_h_n and grad_c_n as h_n and c_n."""
    parts = np.split(grad_y, len(weights), axis=1)
    return [
        cell.scan_backward(parts[d], grad_h_n[d], grad_c_n[d], x, w, layer.scans[d], batch_sizes, d == 1, control)
        for d, w in enumerate(weights)
    ]
