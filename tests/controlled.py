# SPDX-License-Identifier: Apache-2.0
"""A layer under control of its BPTT as a loop in autograd, with a hook on each h_t and c_t, and detached cuts."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tests import composite
from tests.reference import Control


@dataclass
class Seen:
    """What the hooks saw of dL/dh_t and dL/dc_t for each direction and row, before the limit [D, N, 2]."""

    norms: Tensor
    beyond: Tensor  # elements beyond the limit, or (by norm) 1 or 0


def limiter(control: Control, see: Callable[[Tensor], None]) -> Callable[[Tensor], Tensor]:
    """A hook for the gradient [n, features] of one step's state."""

    def hook(grad: Tensor) -> Tensor:
        see(grad)
        if control.clip == "value":
            return grad.clamp(-control.limit, control.limit)
        if control.clip == "norm":
            norm = grad.norm(dim=1, keepdim=True)
            return torch.where(norm > control.limit, grad * (control.limit / norm), grad)
        return grad

    return hook


def layer(
    cell: str,
    x: Tensor,
    h0: Tensor | None,
    c0: Tensor | None,
    weights: Sequence[Tensor],
    batch_sizes: Tensor | None,
    has_biases: bool,
    bidirectional: bool,
    control: Control,
    seen: Seen | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """(y, h_n, c_n), shapes as the op rnnfast::<cell>_layer has them."""
    D = 2 if bidirectional else 1
    each = len(weights) // D
    sizes = [x.shape[1]] * x.shape[0] if batch_sizes is None else batch_sizes.tolist()
    lengths = torch.tensor([sum(size > b for size in sizes) for b in range(sizes[0])])
    starts = [sum(sizes[:t]) for t in range(len(sizes))]
    P = weights[1].shape[1]
    H = weights[1].shape[0] // {"lstm": 4, "gru": 3}.get(cell, 1)
    rows = x.reshape(-1, x.shape[-1])
    results = []
    for d in range(D):
        w = weights[d * each : (d + 1) * each]
        biases = w[2:4] if has_biases else (None, None)
        plain = 4 if has_biases else 2
        w_hr = w[plain] if len(w) > plain else None
        gates_x = torch.nn.functional.linear(rows, w[0], biases[0]).split(sizes)
        h = x.new_zeros(sizes[0], P) if h0 is None else h0[d]
        c = x.new_zeros(sizes[0], H) if c0 is None else c0[d]
        outputs: list[Tensor] = [x] * len(sizes)
        for t in reversed(range(len(sizes))) if d else range(len(sizes)):
            n = sizes[t]
            own = lengths[:n] - 1 - t if d else torch.full((n,), t)
            h_prev, c_prev = h[:n], c[:n]
            if control.steps is not None:
                cut = ((own >= 1) & ((lengths[:n] - own) % control.steps == 0))[:, None]
                h_prev, c_prev = (torch.where(cut, s.detach(), s) for s in (h_prev, c_prev))
            u = torch.nn.functional.linear(h_prev, w[1], biases[1])
            outputs[t], c_new = composite.step(cell, gates_x[t], u, h_prev, c_prev, w_hr)
            for i, state in enumerate((outputs[t], c_new) if cell == "lstm" else (outputs[t],)):

                def see(grad: Tensor, place: tuple[int, slice, int] = (d, slice(starts[t], starts[t] + n), i)) -> None:
                    if seen is not None:
                        seen.norms[place] = norms = grad.detach().norm(dim=1).double()
                        by_element = (grad.detach().abs() > control.limit).sum(1).double()
                        seen.beyond[place] = by_element if control.clip == "value" else (norms > control.limit).double()

                if state.requires_grad:
                    state.register_hook(limiter(control, see))
            h, c = torch.cat([outputs[t], h[n:]]), torch.cat([c_new, c[n:]])
        results.append((torch.cat(outputs), h, c))
    y, h_n = torch.cat([r[0] for r in results], 1), torch.stack([r[1] for r in results])
    c_n = torch.stack([r[2] for r in results]) if cell == "lstm" else x.new_empty(0)
    return y.view(*x.shape[:-1], D * P), h_n, c_n
