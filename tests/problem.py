# SPDX-License-Identifier: Apache-2.0
"""A case's inputs, reference results and torch's; made once, used for every instruction set and thread count."""

import zlib
from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
import torch
from torch import Tensor

from rnnfast.ops import LAYERS
from tests import composite
from tests.cases import HALF, Case
from tests.reference import CELLS, Layer, ScanGradients, Weights, layer_backward, layer_forward

Results = dict[str, Tensor]
Run = Callable[[Tensor, Tensor | None, Tensor | None, list[Tensor]], Sequence[Tensor]]  # x, h0, c0, weights

# Orders of the features besides the given one: half precision and long sums err enough in one or two.
ORDERS = 3
MANY_ROWS = 500

# relu's derivative jumps at 0, where no bound on rounding can hold: no pre-activation may come so close to it.
KINK = 1e-5


class Problem:
    """One case, with the inputs of its seed."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.seed = zlib.crc32(str(case).encode())
        self._draw()
        while case.cell == "rnn_relu" and self._distance_to_kink() < KINK:
            self.seed += 1
            self._draw()
        self.where = f"seed {self.seed}, case {case}"
        self._reference_backward()
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # torch's own pool is slow where other processes use the cores
        self.torch = self.run(self.torch_layer)
        orders = 0 if case.dtype in HALF else 1 if sum(self.batch_sizes) > MANY_ROWS else ORDERS
        all_orders = [self.torch] + [self.run(self._permuted_torch_layer(i)) for i in range(orders)]
        self.torch_orders = [{k: v.detach().double() for k, v in results.items()} for results in all_orders]
        torch.set_num_threads(threads)

    def _draw(self) -> None:
        """Inputs, incoming gradients, and the reference's forward pass."""
        case, D = self.case, self.case.D
        gen = torch.Generator().manual_seed(self.seed)
        dtype = getattr(torch, case.dtype)

        def rand(*shape: int) -> Tensor:
            return torch.randn(shape, generator=gen, dtype=torch.float64).to(dtype)

        T, B, I, H, P = case.T, case.B, case.I, case.H, case.P
        self.batch_sizes = [B] * T
        if case.packed:
            lengths = torch.randint(1, T + 1, (B,), generator=gen).sort(descending=True).values
            lengths[0] = T
            self.batch_sizes = [int((lengths > t).sum()) for t in range(T)]
        self.sizes = torch.tensor(self.batch_sizes) if case.packed else None
        shape = (sum(self.batch_sizes), I) if case.packed else (T, B, I)
        self.x = self._layout(rand, shape)
        self.h0 = rand(D, B, P) if case.h0 else None
        self.c0 = rand(D, B, H) if case.c0 else None
        scale = max(I, H) ** -0.5  # pre-activations of order 1: rounding is not amplified by large, cancelling sums
        if case.cell == "rnn_relu":
            scale /= 2  # nothing saturates: the state must not grow
        G = CELLS[case.cell].gates
        kinds = [(G * H, I), (G * H, P)] + [(G * H,)] * (2 * case.bias) + [(P, H)] * bool(case.proj)
        self.weights = [rand(*k) * scale for _ in range(D) for k in kinds]
        c_shape = (D, B, H) if case.has_cell else (0,)
        self.grads = {"y": rand(*shape[:-1], D * P), "h_n": rand(D, B, P), "c_n": rand(*c_shape)}
        self._reference_forward()

    def _layout(self, rand: Callable[..., Tensor], shape: tuple[int, ...]) -> Tensor:
        layout = self.case.layout
        if layout == "batch_first":
            T, B, I = shape
            return rand(B, T, I).transpose(0, 1)
        if layout == "expanded":
            return rand(shape[0], 1, shape[2]).expand(shape)
        if layout == "strided":
            return rand(*shape[:-1], 2 * shape[-1])[..., ::2]
        return rand(*shape)

    def _reference_forward(self) -> None:
        case, D = self.case, self.case.D
        self.each = len(self.weights) // D
        w64 = [w.double().numpy() for w in self.weights]
        zeros = np.zeros(w64[0].shape[0])
        self._w64 = []
        for d in range(D):
            w_ih, w_hh, *rest = w64[d * self.each : (d + 1) * self.each]
            b_ih, b_hh = rest[:2] if case.bias else (zeros, zeros)
            self._w64.append(Weights(w_ih, w_hh, b_ih, b_hh, rest[-1] if case.proj else None))
        self._x64 = self.x.double().reshape(-1, case.I).numpy()
        h0, c0 = (
            np.zeros((D, case.B, n)) if s is None else s.double().numpy()
            for s, n in ((self.h0, case.P), (self.c0, case.H))
        )
        self._layer: Layer = layer_forward(case.cell, self._x64, h0, c0, self._w64, self.batch_sizes)

    def _distance_to_kink(self) -> float:
        return min((float(np.abs(s.kept).min()) for s in self._layer.scans if s.kept.size), default=np.inf)

    def _reference_backward(self) -> None:
        case, D, layer = self.case, self.case.D, self._layer
        gy, gh, gc = (g.double().numpy() if self.weighed(name) else np.zeros(g.shape) for name, g in self.grads.items())
        if not case.has_cell:
            gc = np.zeros((D, 0))
        back = layer_backward(
            case.cell, gy.reshape(-1, D * case.P), gh, gc, self._x64, self._w64, layer, self.batch_sizes
        )
        self.reference = {
            "y": layer.y.reshape(self.grads["y"].shape),
            "h_n": layer.h_n,
            "c_n": layer.c_n,
            "grad x": np.sum([b.x for b in back], axis=0).reshape(self.x.shape),
            "grad h0": np.stack([b.h0 for b in back]),
            "grad c0": np.stack([b.c0 for b in back]),
        }
        for d, b in enumerate(back):
            parts = self._flat(b)
            self.reference |= {f"grad weight {d * self.each + i}": p for i, p in enumerate(parts)}

    def _flat(self, back: ScanGradients) -> list[np.ndarray]:
        w = back.weights
        return [w.w_ih, w.w_hh] + [w.b_ih, w.b_hh] * self.case.bias + ([] if w.w_hr is None else [w.w_hr])

    def weighed(self, output: str) -> bool:
        """Whether the loss depends on the output (y, h_n, c_n)."""
        return output[0] in self.case.outputs and (output != "c_n" or self.case.has_cell)

    def torch_layer(self, x: Tensor, h0: Tensor | None, c0: Tensor | None, weights: list[Tensor]) -> Sequence[Tensor]:
        """torch's own layer, or the same formula in torch's operations where torch has none."""
        case = self.case
        if case.cell == "rnn_sigmoid" or case.proj >= case.H:
            return composite.layer(case.cell, x, h0, c0, weights, self.sizes, case.bias, case.bidirectional)
        h0 = x.new_zeros(case.D, case.B, case.P) if h0 is None else h0
        c0 = x.new_zeros(case.D, case.B, case.H) if c0 is None else c0
        hx = (h0, c0) if case.has_cell else h0
        run = getattr(torch._VF, case.cell)
        if case.packed:
            out = run(x, self.sizes, hx, weights, case.bias, 1, 0.0, True, case.bidirectional)
        else:
            out = run(x, hx, weights, case.bias, 1, 0.0, True, case.bidirectional, False)
        return out if case.has_cell else (*out, x.new_empty(0))

    def _permuted_torch_layer(self, seed: int) -> Run:
        """torch on the same problem with its features in another order.

        A tensor of a few elements can be right by luck in one order of a sum; torch's own error is what it makes over
        several. (Autograd undoes the permutation, so results and gradients stay comparable.)
        """
        order = torch.randperm(self.case.I, generator=torch.Generator().manual_seed(seed))

        def layer(x: Tensor, h0: Tensor | None, c0: Tensor | None, weights: list[Tensor]) -> Sequence[Tensor]:
            permuted = [w[:, order] if i % self.each == 0 else w for i, w in enumerate(weights)]
            return self.torch_layer(x[..., order], h0, c0, permuted)

        return layer

    def torch_results(self, name: str) -> list[Tensor]:
        """In float64, so that comparing them again costs no conversion."""
        return [results[name] for results in self.torch_orders]

    def ours(self, x: Tensor, h0: Tensor | None, c0: Tensor | None, weights: list[Tensor]) -> Sequence[Tensor]:
        case = self.case
        return LAYERS[case.cell](x, h0, c0, weights, self.sizes, case.bias, case.bidirectional, False)[:3]

    def run(self, layer: Run) -> Results:
        """Outputs, and the gradients that the case asks for."""
        needs = self.case.needs
        x = self.x.detach().requires_grad_(needs in ("all", "x"))
        h0, c0 = (
            None if s is None else s.detach().clone().requires_grad_(needs in ("all", "states"))
            for s in (self.h0, self.c0)
        )
        weights = [w.detach().clone().requires_grad_(needs in ("all", "weights")) for w in self.weights]
        out = dict(zip(("y", "h_n", "c_n"), layer(x, h0, c0, weights), strict=True))
        named = {"grad x": x, "grad h0": h0, "grad c0": c0} | {f"grad weight {i}": w for i, w in enumerate(weights)}
        inputs = {k: v for k, v in named.items() if v is not None and v.requires_grad}
        if not inputs:
            return out
        chosen = [name for name in out if self.weighed(name)]
        grads = torch.autograd.grad(
            [out[name] for name in chosen],
            list(inputs.values()),
            [self.grads[name] for name in chosen],
            allow_unused=True,
        )
        for (name, inp), g in zip(inputs.items(), grads, strict=True):
            out[name] = torch.zeros_like(inp) if g is None else g
        return out


@cache
def problem(case: Case) -> Problem:
    return Problem(case)
