# SPDX-License-Identifier: Apache-2.0
"""The Elman cell in NumPy float64: forward, and BPTT written out by hand.

One step (Elman 1990)::

    a_t = W_ih x_t + b_ih + W_hh h_{t-1} + b_hh
    h_t = phi(a_t)                              phi: tanh, relu, or the logistic sigmoid of the textbooks

relu's derivative at 0 is 0, as torch has it.
"""

from collections.abc import Callable

import numpy as np

from tests.reference.common import Array, Control, Scan, ScanGradients, Weights, sigmoid, steps

# phi(a), and its derivative from a.
PHI: dict[str, tuple[Callable[[Array], Array], Callable[[Array], Array]]] = {
    "tanh": (np.tanh, lambda a: 1 - np.tanh(a) ** 2),
    "relu": (lambda a: np.maximum(a, 0.0), lambda a: (a > 0).astype(np.float64)),
    "sigmoid": (sigmoid, lambda a: sigmoid(a) * sigmoid(-a)),
}


class Elman:
    gates = 1
    has_cell = False

    def __init__(self, nonlinearity: str) -> None:
        self.phi, self.slope = PHI[nonlinearity]

    def scan_forward(self, x: Array, h0: Array, c0: Array, w: Weights, batch_sizes: list[int], reverse: bool) -> Scan:
        """Keeps the pre-activations [N, H]."""
        N, H = x.shape[0], w.w_hh.shape[1]
        h = h0.copy()  # of samples that have not begun their initial state, of samples that have ended their final one
        y, h_prev, a = (np.zeros((N, H)) for _ in range(3))
        for s, n in steps(batch_sizes, reverse):
            h_prev[s] = h[:n]
            a[s] = x[s] @ w.w_ih.T + w.b_ih + h[:n] @ w.w_hh.T + w.b_hh
            h[:n] = self.phi(a[s])
            y[s] = h[:n]
        return Scan(y, h, np.zeros(0), h_prev, a)

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
        a: Array = scan.kept
        dh = grad_h_n.copy()  # the error signal on its way back, for each sample
        delta = np.zeros_like(a)
        norms = np.zeros((len(a), 2))
        for p, (s, n) in reversed(list(enumerate(steps(batch_sizes, reverse)))):
            dh_t = dh[:n] + grad_y[s]
            norms[s, 0] = np.linalg.norm(dh_t, axis=1)
            delta[s] = control.limited(dh_t) * self.slope(a[s])
            dh[:n] = delta[s] @ w.w_hh * control.passes(p, n, batch_sizes, reverse)
        bias = delta.sum(axis=0)
        weights = Weights(delta.T @ x, delta.T @ scan.h_prev, bias, bias)
        return ScanGradients(delta @ w.w_ih, dh, np.zeros(0), weights, norms)
