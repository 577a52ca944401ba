# SPDX-License-Identifier: Apache-2.0
"""The LSTM in NumPy float64: forward, and backpropagation through time (BPTT) written out by hand.

This says what is right. It is a second copy of the mathematics on purpose, and shares no code with the kernels.

One step (Hochreiter and Schmidhuber 1997; forget gate: Gers, Schmidhuber and Cummins 2000; projection: Sak, Senior
and Beaufays 2014)::

    a_t = W_ih x_t + b_ih + W_hh h_{t-1} + b_hh              pre-activations of the gates i, f, g, o
    i, f, o = sigmoid(a_i), sigmoid(a_f), sigmoid(a_o);  g = tanh(a_g)
    c_t = f * c_{t-1} + i * g
    m_t = o * tanh(c_t)
    h_t = m_t, or W_hr m_t with a projection

Back in time (Werbos 1990). The error signal of step t is dL/dh_t: from the output of step t, plus what comes back from
step t+1. All steps share one W_hh, so its gradient is the sum over t of delta_t h_{t-1}^T.
"""

from dataclasses import dataclass

import numpy as np

from tests.reference.common import Array, Control, Scan, ScanGradients, Weights, sigmoid, steps


@dataclass
class Kept:
    """Of each row: the gates' activations [N, 4H], c_t, c_{t-1} and m_t [N, H]."""

    gates: Array
    cells: Array
    c_prev: Array
    m: Array


class Lstm:
    gates = 4
    has_cell = True

    def scan_forward(self, x: Array, h0: Array, c0: Array, w: Weights, batch_sizes: list[int], reverse: bool) -> Scan:
        N, P, H = x.shape[0], w.w_hh.shape[1], w.w_hh.shape[0] // 4
        # Samples that have not begun hold their initial state, samples that have ended their final one.
        h, c = h0.copy(), c0.copy()
        y, h_prev = np.zeros((N, P)), np.zeros((N, P))
        kept = Kept(np.zeros((N, 4 * H)), *(np.zeros((N, H)) for _ in range(3)))
        for s, n in steps(batch_sizes, reverse):
            h_prev[s], kept.c_prev[s] = h[:n], c[:n]
            a = x[s] @ w.w_ih.T + w.b_ih + h[:n] @ w.w_hh.T + w.b_hh
            i, f, g, o = np.split(a, 4, axis=1)
            i, f, g, o = sigmoid(i), sigmoid(f), np.tanh(g), sigmoid(o)
            c[:n] = f * c[:n] + i * g
            m = o * np.tanh(c[:n])
            h[:n] = m if w.w_hr is None else m @ w.w_hr.T
            y[s], kept.cells[s], kept.m[s], kept.gates[s] = h[:n], c[:n], m, np.concatenate([i, f, g, o], axis=1)
        return Scan(y, h, c, h_prev, kept)

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
        kept: Kept = scan.kept
        dh, dc = grad_h_n.copy(), grad_c_n.copy()  # the error signal on its way back, for each sample
        dh_all = np.zeros_like(scan.y)  # dL/dh_t
        delta = np.zeros_like(kept.gates)
        norms = np.zeros((len(x), 2))
        for p, (s, n) in reversed(list(enumerate(steps(batch_sizes, reverse)))):
            i, f, g, o = np.split(kept.gates[s], 4, axis=1)
            tanh_c = np.tanh(kept.cells[s])
            dh_t = dh[:n] + grad_y[s]
            dh_all[s] = control.limited(dh_t)
            dm = dh_all[s] if w.w_hr is None else dh_all[s] @ w.w_hr
            dc_t = dc[:n] + dm * o * (1 - tanh_c**2)
            norms[s] = np.stack([np.linalg.norm(dh_t, axis=1), np.linalg.norm(dc_t, axis=1)], axis=1)
            dc_t = control.limited(dc_t)
            delta[s] = np.concatenate(
                [
                    dc_t * g * i * (1 - i),
                    dc_t * kept.c_prev[s] * f * (1 - f),
                    dc_t * i * (1 - g**2),
                    dm * tanh_c * o * (1 - o),
                ],
                axis=1,
            )
            passes = control.passes(p, n, batch_sizes, reverse)
            dc[:n] = dc_t * f * passes
            dh[:n] = delta[s] @ w.w_hh * passes
        bias = delta.sum(axis=0)
        w_hr = None if w.w_hr is None else dh_all.T @ kept.m
        weights = Weights(delta.T @ x, delta.T @ scan.h_prev, bias, bias, w_hr)
        return ScanGradients(delta @ w.w_ih, dh, dc, weights, norms)
