# SPDX-License-Identifier: Apache-2.0
"""The LSTM in NumPy float64: forward, and backpropagation through time (BPTT) written out by hand.

This says what is right. It is a second copy of the mathematics on purpose, and shares no code with the kernels.

One step (Hochreiter and Schmidhuber 1997; forget gate: Gers, Schmidhuber and Cummins 2000)::

    a_t = W_ih x_t + b_ih + W_hh h_{t-1} + b_hh              pre-activations of the gates i, f, g, o
    i, f, o = sigmoid(a_i), sigmoid(a_f), sigmoid(a_o);  g = tanh(a_g)
    c_t = f * c_{t-1} + i * g
    h_t = o * tanh(c_t)

Back in time (Werbos 1990). The error signal of step t is dL/dh_t: from the output of step t, plus what comes back from
step t+1. All steps share one W_hh, so its gradient is the sum over t of delta_t h_{t-1}^T.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x)), without overflow."""
    e = np.exp(-np.abs(x))
    return np.where(x < 0, e, 1.0) / (1.0 + e)


@dataclass
class Weights:
    """One direction: w_ih [4H, I], w_hh [4H, H], b_ih and b_hh [4H] (zeros without biases)."""

    w_ih: Array
    w_hh: Array
    b_ih: Array
    b_hh: Array


@dataclass
class Scan:
    """What one direction's forward pass leaves: rows as in the input, in torch's packed order."""

    y: Array  # [N, H]
    h_n: Array  # [B, H]
    c_n: Array  # [B, H]
    gates: Array  # [N, 4H], activations
    cells: Array  # [N, H]
    h_prev: Array  # [N, H], the state each row started from
    c_prev: Array  # [N, H]


def _steps(batch_sizes: list[int], reverse: bool) -> list[tuple[int, int]]:
    """(first row, active samples) of each time step, in processing order."""
    first = np.concatenate([[0], np.cumsum(batch_sizes)[:-1]])
    steps = [(int(r), int(n)) for r, n in zip(first, batch_sizes, strict=True)]
    return steps[::-1] if reverse else steps


def scan_forward(x: Array, h0: Array, c0: Array, w: Weights, batch_sizes: list[int], reverse: bool) -> Scan:
    """One direction. x [N, I], h0 and c0 [B, H]; step t has the first batch_sizes[t] samples."""
    rows, H = x.shape[0], w.w_hh.shape[1]
    out = Scan(
        *(np.zeros((rows, n)) for n in (H,)),
        h0.copy(),
        c0.copy(),
        *(np.zeros((rows, n)) for n in (4 * H, H, H, H)),
    )
    # Samples that have not begun hold their initial state, samples that have ended their final one.
    h, c = out.h_n, out.c_n
    for row, n in _steps(batch_sizes, reverse):
        s = slice(row, row + n)
        out.h_prev[s], out.c_prev[s] = h[:n], c[:n]
        a = x[s] @ w.w_ih.T + w.b_ih + h[:n] @ w.w_hh.T + w.b_hh
        i, f, g, o = np.split(a, 4, axis=1)
        i, f, g, o = sigmoid(i), sigmoid(f), np.tanh(g), sigmoid(o)
        c[:n] = f * c[:n] + i * g
        h[:n] = o * np.tanh(c[:n])
        out.y[s], out.cells[s], out.gates[s] = h[:n], c[:n], np.concatenate([i, f, g, o], axis=1)
    return out


@dataclass
class ScanGradients:
    """dL/d of x [N, I], h0, c0 [B, H] and the weights."""

    x: Array
    h0: Array
    c0: Array
    weights: Weights


def scan_backward(
    grad_y: Array,
    grad_h_n: Array,
    grad_c_n: Array,
    x: Array,
    w: Weights,
    scan: Scan,
    batch_sizes: list[int],
    reverse: bool,
) -> ScanGradients:
    """BPTT for one direction: processing order backwards."""
    dh, dc = grad_h_n.copy(), grad_c_n.copy()  # the error signal on its way back, for each sample
    delta = np.zeros_like(scan.gates)
    for row, n in reversed(_steps(batch_sizes, reverse)):
        s = slice(row, row + n)
        i, f, g, o = np.split(scan.gates[s], 4, axis=1)
        tanh_c = np.tanh(scan.cells[s])
        dh_t = dh[:n] + grad_y[s]
        dc_t = dc[:n] + dh_t * o * (1 - tanh_c**2)
        delta[s] = np.concatenate(
            [
                dc_t * g * i * (1 - i),
                dc_t * scan.c_prev[s] * f * (1 - f),
                dc_t * i * (1 - g**2),
                dh_t * tanh_c * o * (1 - o),
            ],
            axis=1,
        )
        dc[:n] = dc_t * f
        dh[:n] = delta[s] @ w.w_hh
    bias = delta.sum(axis=0)
    return ScanGradients(delta @ w.w_ih, dh, dc, Weights(delta.T @ x, delta.T @ scan.h_prev, bias, bias))


@dataclass
class Layer:
    """A layer with all its directions: y [N, D*H], h_n and c_n [D, B, H]."""

    y: Array
    h_n: Array
    c_n: Array
    scans: list[Scan]


def layer_forward(x: Array, h0: Array, c0: Array, weights: list[Weights], batch_sizes: list[int]) -> Layer:
    """x [N, I], h0 and c0 [D, B, H]. Direction 1 runs from the last step to the first."""
    scans = [scan_forward(x, h0[d], c0[d], w, batch_sizes, d == 1) for d, w in enumerate(weights)]
    return Layer(
        np.concatenate([s.y for s in scans], axis=1),
        np.stack([s.h_n for s in scans]),
        np.stack([s.c_n for s in scans]),
        scans,
    )


def layer_backward(
    grad_y: Array,
    grad_h_n: Array,
    grad_c_n: Array,
    x: Array,
    weights: list[Weights],
    layer: Layer,
    batch_sizes: list[int],
) -> list[ScanGradients]:
    """The gradients of each direction; dL/dx is the sum of theirs."""
    parts = np.split(grad_y, len(weights), axis=1)
    return [
        scan_backward(parts[d], grad_h_n[d], grad_c_n[d], x, w, layer.scans[d], batch_sizes, d == 1)
        for d, w in enumerate(weights)
    ]
