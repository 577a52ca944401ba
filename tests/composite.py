# SPDX-License-Identifier: Apache-2.0
"""A layer in plain differentiable torch operations, in any dtype: the measure of error where torch has no such layer.

torch has no logistic Elman network, and no projection to H features or more.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

PHI = {"rnn_tanh": torch.tanh, "rnn_relu": torch.relu, "rnn_sigmoid": torch.sigmoid}


def step(cell: str, a: Tensor, u: Tensor, h: Tensor, c: Tensor, w_hr: Tensor | None) -> tuple[Tensor, Tensor]:
    """One step of n samples: a [n, G*H] = W x + b_ih, u [n, G*H] = U h + b_hh, h [n, P], c [n, H] -> h, c."""
    if cell == "lstm":
        i, f, g, o = (a + u).chunk(4, 1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        return (h if w_hr is None else h @ w_hr.t()), c
    if cell == "gru":
        (a_r, a_z, a_n), (u_r, u_z, u_n) = a.chunk(3, 1), u.chunk(3, 1)
        r, z = (a_r + u_r).sigmoid(), (a_z + u_z).sigmoid()
        n = (a_n + r * u_n).tanh()
        return (1 - z) * n + z * h, c
    return PHI[cell](a + u), c


def scan(
    cell: str, x: Tensor, h: Tensor, c: Tensor, weights: Sequence[Tensor], has_biases: bool, sizes: list[int], rev: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """One direction: x [N, I] in packed order, h [B, P], c [B, H]; sizes: the samples active at each step."""
    biases = weights[2:4] if has_biases else (None, None)
    plain = 4 if has_biases else 2
    w_hr = weights[plain] if len(weights) > plain else None
    gates_x = torch.nn.functional.linear(x, weights[0], biases[0]).split(sizes)
    outputs: list[Tensor] = [x] * len(sizes)
    for t in reversed(range(len(sizes))) if rev else range(len(sizes)):
        n = sizes[t]
        u = torch.nn.functional.linear(h[:n], weights[1], biases[1])
        outputs[t], c_new = step(cell, gates_x[t], u, h[:n], c[:n], w_hr)
        h, c = torch.cat([outputs[t], h[n:]]), torch.cat([c_new, c[n:]])
    return torch.cat(outputs), h, c


def layer(
    cell: str,
    x: Tensor,
    h0: Tensor | None,
    c0: Tensor | None,
    weights: Sequence[Tensor],
    batch_sizes: Tensor | None,
    has_biases: bool,
    bidirectional: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """(y, h_n, c_n), shapes as the op rnnfast::<cell>_layer has them."""
    D = 2 if bidirectional else 1
    each = len(weights) // D
    sizes = [x.shape[1]] * x.shape[0] if batch_sizes is None else batch_sizes.tolist()
    P = weights[1].shape[1]
    H = weights[1].shape[0] // {"lstm": 4, "gru": 3}.get(cell, 1)
    h0 = x.new_zeros(D, sizes[0], P) if h0 is None else h0
    c0 = x.new_zeros(D, sizes[0], H) if c0 is None else c0
    rows = x.reshape(-1, x.shape[-1])
    scans = [
        scan(cell, rows, h0[d], c0[d], weights[d * each : (d + 1) * each], has_biases, sizes, d == 1) for d in range(D)
    ]
    y, h_n = torch.cat([s[0] for s in scans], 1), torch.stack([s[1] for s in scans])
    c_n = torch.stack([s[2] for s in scans]) if cell == "lstm" else x.new_empty(0)
    return y.view(*x.shape[:-1], D * P), h_n, c_n
