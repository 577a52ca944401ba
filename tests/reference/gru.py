# SPDX-License-Identifier: Apache-2.0
"""The GRU in NumPy float64, in torch's form (linear before reset): forward, and BPTT written out by hand.

One step (Cho et al. 2014; the reset gate acts on the recurrent product, as in cuDNN)::

    x_t's share  v = W_ih x_t + b_ih        h_{t-1}'s share  u = W_hh h_{t-1} + b_hh        each of the gates r, z, n
    r, z = sigmoid(v_r + u_r), sigmoid(v_z + u_z)
    n    = tanh(v_n + r * u_n)
    h_t  = (1 - z) * n + z * h_{t-1}

Since r stands between u_n and n, the gradients of v and u differ in their third part: dn and r * dn. So W_ih, b_ih take
one delta, W_hh, b_hh another.
"""

from dataclasses import dataclass

import numpy as np

from tests.reference.common import Array, Control, Scan, ScanGradients, Weights, sigmoid, steps


@dataclass
class Kept:
    """Of each row: r, z, n and u_n [N, H]."""

    r: Array
    z: Array
    n: Array
    u_n: Array


class Gru:
    gates = 3
    has_cell = False

    def scan_forward(self, x: Array, h0: Array, c0: Array, w: Weights, batch_sizes: list[int], reverse: bool) -> Scan:
        N, H = x.shape[0], w.w_hh.shape[1]
        h = h0.copy()  # of samples that have not begun their initial state, of samples that have ended their final one
        y, h_prev = np.zeros((N, H)), np.zeros((N, H))
        kept = Kept(*(np.zeros((N, H)) for _ in range(4)))
        for s, active in steps(batch_sizes, reverse):
            h_prev[s] = h[:active]
            v_r, v_z, v_n = np.split(x[s] @ w.w_ih.T + w.b_ih, 3, axis=1)
            u_r, u_z, u_n = np.split(h[:active] @ w.w_hh.T + w.b_hh, 3, axis=1)
            r, z = sigmoid(v_r + u_r), sigmoid(v_z + u_z)
            n = np.tanh(v_n + r * u_n)
            h[:active] = (1 - z) * n + z * h[:active]
            y[s], kept.r[s], kept.z[s], kept.n[s], kept.u_n[s] = h[:active], r, z, n, u_n
        return Scan(y, h, np.zeros(0), h_prev, kept)

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
        dh = grad_h_n.copy()  # the error signal on its way back, for each sample
        dv, du = (np.zeros((x.shape[0], w.w_hh.shape[0])) for _ in range(2))  # dL/dv and dL/du of each row
        norms = np.zeros((len(x), 2))
        for p, (s, active) in reversed(list(enumerate(steps(batch_sizes, reverse)))):
            r, z, n, u_n = kept.r[s], kept.z[s], kept.n[s], kept.u_n[s]
            dh_t = dh[:active] + grad_y[s]
            norms[s, 0] = np.linalg.norm(dh_t, axis=1)
            dh_t = control.limited(dh_t)
            d_n = dh_t * (1 - z) * (1 - n**2)
            d_z = dh_t * (scan.h_prev[s] - n) * z * (1 - z)
            d_r = d_n * u_n * r * (1 - r)
            dv[s] = np.concatenate([d_r, d_z, d_n], axis=1)
            du[s] = np.concatenate([d_r, d_z, d_n * r], axis=1)
            dh[:active] = (dh_t * z + du[s] @ w.w_hh) * control.passes(p, active, batch_sizes, reverse)
        weights = Weights(dv.T @ x, du.T @ scan.h_prev, dv.sum(axis=0), du.sum(axis=0))
        return ScanGradients(dv @ w.w_ih, dh, np.zeros(0), weights, norms)
