# SPDX-License-Identifier: Apache-2.0
"""The op against the NumPy float64 reference, within twice torch's own error: every ISA, 1 and 2 threads."""

import zlib
from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor

from rnnfast.ops import lstm_layer
from tests.cases import PAIRWISE, Case, full
from tests.helpers import ISAS, assert_bitwise_equal, assert_within_bound, machine
from tests.reference.lstm import Weights, layer_backward, layer_forward


class Problem:
    """Inputs, reference results and torch's results of a case; made once, used for every ISA and thread count."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.seed = zlib.crc32(str(case).encode())
        self.where = f"seed {self.seed}, case {case}"
        gen = torch.Generator().manual_seed(self.seed)
        dtype = getattr(torch, case.dtype)
        T, B, I, H = case.T, case.B, case.I, case.H
        D = 2 if case.bidirectional else 1

        def rand(*shape: int) -> Tensor:
            return torch.randn(shape, generator=gen, dtype=torch.float64).to(dtype)

        if case.packed:
            lengths = torch.randint(1, T + 1, (B,), generator=gen).sort(descending=True).values
            lengths[0] = T
            self.batch_sizes = [int((lengths > t).sum()) for t in range(T)]
        else:
            self.batch_sizes = [B] * T
        rows = sum(self.batch_sizes)
        shape = (rows, I) if case.packed else (T, B, I)
        self.x = self._layout(rand, shape)
        self.h0 = rand(D, B, H) if case.h0 else None
        self.c0 = rand(D, B, H) if case.c0 else None
        scale = max(I, H) ** -0.5  # pre-activations of order 1: rounding is not amplified by large, cancelling sums
        kinds = [(4 * H, I), (4 * H, H)] + ([(4 * H,)] * 2 if case.bias else [])
        self.weights = [rand(*k) * scale for _ in range(D) for k in kinds]
        self.grads = [rand(*shape[:-1], D * H), rand(D, B, H), rand(D, B, H)]
        self._reference(D)

    def _layout(self, rand, shape) -> Tensor:
        layout = self.case.layout
        if layout == "batch_first":
            T, B, I = shape
            return rand(B, T, I).transpose(0, 1)
        if layout == "expanded":
            return rand(shape[0], 1, shape[2]).expand(shape)
        if layout == "strided":
            return rand(*shape[:-1], 2 * shape[-1])[..., ::2]
        return rand(*shape)

    def _reference(self, D: int) -> None:
        case, H = self.case, self.case.H
        each = len(self.weights) // D
        w64 = [w.double().numpy() for w in self.weights]
        zeros = np.zeros(4 * H)
        weights = [
            Weights(
                *w64[d * each : d * each + 2],
                *(w64[d * each + 2 : (d + 1) * each] if case.bias else (zeros, zeros)),
            )
            for d in range(D)
        ]
        x = self.x.double().reshape(-1, case.I).numpy()
        state = np.zeros((D, case.B, H))
        h0 = state if self.h0 is None else self.h0.double().numpy()
        c0 = state if self.c0 is None else self.c0.double().numpy()
        layer = layer_forward(x, h0, c0, weights, self.batch_sizes)
        gy, gh, gc = (
            g.double().numpy() if k in case.outputs else np.zeros(g.shape)
            for g, k in zip(self.grads, "yhc", strict=True)
        )
        back = layer_backward(gy.reshape(-1, D * H), gh, gc, x, weights, layer, self.batch_sizes)
        self.reference = {
            "y": layer.y.reshape(self.grads[0].shape),
            "h_n": layer.h_n,
            "c_n": layer.c_n,
            "grad x": sum(b.x for b in back).reshape(self.x.shape),
            "grad h0": np.stack([b.h0 for b in back]),
            "grad c0": np.stack([b.c0 for b in back]),
        }
        for d, b in enumerate(back):
            parts = [b.weights.w_ih, b.weights.w_hh, b.weights.b_ih, b.weights.b_hh][:each]
            self.reference |= {f"grad weight {d * each + i}": p for i, p in enumerate(parts)}
        self.torch = self.run(self._torch_layer)
        self.torch_orders = [self.torch] + [self.run(self._permuted_torch_layer(i)) for i in range(3)]

    def _permuted_torch_layer(self, seed: int):
        """torch on the same problem with its features in another order.

        A tensor of a few elements can be right by luck in one order of a sum; torch's own error is what it makes over
        several. (Autograd undoes the permutation, so results and gradients stay comparable.)
        """
        order = torch.randperm(self.case.I, generator=torch.Generator().manual_seed(seed))
        each = len(self.weights) // (2 if self.case.bidirectional else 1)

        def layer(x, h0, c0, weights):
            return self._torch_layer(
                x[..., order], h0, c0, [w[:, order] if i % each == 0 else w for i, w in enumerate(weights)]
            )

        return layer

    def torch_results(self, name: str) -> list[Tensor]:
        return [results[name] for results in self.torch_orders]

    def _torch_layer(self, x, h0, c0, weights):
        case = self.case
        D = 2 if case.bidirectional else 1
        zeros = x.new_zeros(D, case.B, case.H)
        hx = (zeros if h0 is None else h0, zeros if c0 is None else c0)
        if case.packed:
            return torch._VF.lstm(
                x, torch.tensor(self.batch_sizes), hx, weights, case.bias, 1, 0.0, True, case.bidirectional
            )
        return torch._VF.lstm(x, hx, weights, case.bias, 1, 0.0, True, case.bidirectional, False)

    def ours(self, x, h0, c0, weights):
        case = self.case
        sizes = torch.tensor(self.batch_sizes) if case.packed else None
        return lstm_layer(x, h0, c0, weights, sizes, case.bias, case.bidirectional, False)[:3]

    def run(self, layer) -> dict[str, Tensor]:
        """Outputs, and the gradients that the case asks for."""
        needs = self.case.needs
        x = self.x.detach().requires_grad_(needs in ("all", "x"))
        states = [
            None if s is None else s.detach().clone().requires_grad_(needs in ("all", "states"))
            for s in (self.h0, self.c0)
        ]
        weights = [w.detach().clone().requires_grad_(needs in ("all", "weights")) for w in self.weights]
        out = dict(zip(("y", "h_n", "c_n"), layer(x, *states, weights), strict=True))
        inputs = {"grad x": x, "grad h0": states[0], "grad c0": states[1]}
        inputs |= {f"grad weight {i}": w for i, w in enumerate(weights)}
        inputs = {k: v for k, v in inputs.items() if v is not None and v.requires_grad}
        chosen = [
            (o, g) for o, g, k in zip(list(out.values()), self.grads, "yhc", strict=True) if k in self.case.outputs
        ]
        if not inputs:
            return out
        grads = torch.autograd.grad(
            [o for o, _ in chosen], list(inputs.values()), [g for _, g in chosen], allow_unused=True
        )
        for (name, inp), g in zip(inputs.items(), grads, strict=True):
            out[name] = torch.zeros_like(inp) if g is None else g
        return out


@cache
def problem(case: Case) -> Problem:
    return Problem(case)


def check(case: Case, isa: str, threads: int) -> None:
    p = problem(case)
    with machine(isa, threads):
        got = p.run(p.ours)
        with torch.no_grad():
            inference = p.ours(p.x, p.h0, p.c0, p.weights)
    assert got.keys() == p.torch.keys()
    where = f"{p.where}, isa {isa}, {threads} threads"
    for name, tensor in got.items():
        if name in p.reference:
            assert_within_bound(name, tensor, p.torch_results(name), p.reference[name], where)
    for name, tensor in zip(("y", "h_n", "c_n"), inference, strict=True):
        assert_within_bound(f"inference {name}", tensor, p.torch_results(name), p.reference[name], where)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("case", PAIRWISE, ids=str)
def test_pairwise(case: Case, isa: str, threads: int) -> None:
    check(case, isa, threads)


@pytest.mark.full
@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("seed", range(20))
def test_full_crossing(seed: int, isa: str) -> None:
    for case in full(200, seed):
        for threads in (1, 2):
            check(case, isa, threads)
        problem.cache_clear()


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(
    ("T", "B", "I", "H"), [(3, 33, 300, 100), (40, 5, 257, 130), (300, 2, 20, 24), (5, 24, 16, 48)]
)
@pytest.mark.parametrize("packed", [False, True])
def test_blocking_boundaries(T: int, B: int, I: int, H: int, packed: bool, isa: str) -> None:
    """Sizes at which K blocks, chunks of steps and the decomposition by rows take effect."""
    case = Case(T, B, I, H, "float32", True, True, packed, True, True, "contiguous", "yhc", "all")
    for threads in (1, 2):
        check(case, isa, threads)


def test_the_bound_can_fail() -> None:
    """A wrong result is caught: one element off by a thousandth."""
    p = problem(PAIRWISE[3])
    wrong = p.torch["y"].detach().clone()
    wrong.view(-1)[-1] += 1e-3
    with pytest.raises(AssertionError, match="seed .*first at"):
        assert_within_bound("y", wrong, p.torch_results("y"), p.reference["y"], p.where)


def test_pairwise_really_covers() -> None:
    """Each size of B, H and I meets each dtype, direction and packing."""
    for a in ("B", "H", "I", "T"):
        for b in ("dtype", "bidirectional", "layout", "outputs", "needs"):
            seen = {(getattr(c, a), getattr(c, b)) for c in PAIRWISE}
            assert len(seen) == len({x for x, _ in seen}) * len({y for _, y in seen})


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("isa", ISAS)
def test_same_bits_twice(isa: str, threads: int) -> None:
    case = Case(17, 31, 17, 65, "float32", True, True, False, True, True, "contiguous", "yhc", "all")
    p = problem(case)
    with machine(isa, threads):
        first, second = p.run(p.ours), p.run(p.ours)
    for name in first:
        assert_bitwise_equal(name, first[name], second[name], f"{isa}, {threads} threads")
