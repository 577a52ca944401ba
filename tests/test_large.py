# SPDX-License-Identifier: Apache-2.0
"""Sizes and strides beyond 2^31 elements, without memory for them: expanded and untouched virtual memory."""

import mmap
import resource
import sys

import pytest
import torch
from torch import Tensor

from rnnfast.ops import LAYERS, LAYERS_BACKWARD
from rnnfast.specs import CELLS
from tests.helpers import assert_bitwise_equal

pytestmark = pytest.mark.skipif(sys.maxsize < 2**33, reason="64-bit address space")
BEYOND = 2**31 + 2**20  # elements
KINDS = ["rnn_tanh", "lstm"]


def weights_of(cell: str, inputs: int, hidden: int) -> list[Tensor]:
    gates = CELLS[cell].gates * hidden
    gen = torch.Generator().manual_seed(0)
    shapes = [(gates, inputs), (gates, hidden), (gates,), (gates,)]
    return [torch.randn(s, generator=gen) / hidden for s in shapes]


def untouched(elements: int) -> Tensor:
    """float32 zeros, of which only the pages that are written take memory."""
    no_reserve = getattr(mmap, "MAP_NORESERVE", 0x4000)  # named from Python 3.13 on
    buffer = mmap.mmap(-1, 4 * elements, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | no_reserve)
    return torch.frombuffer(buffer, dtype=torch.float32)


def call(cell: str, x: Tensor, weights: list[Tensor], save: bool = False) -> list[Tensor]:
    return list(LAYERS[cell](x, None, None, weights, None, True, False, save))


@pytest.mark.parametrize("where", ["time", "batch", "features"])
@pytest.mark.parametrize("cell", KINDS)
def test_strides(cell: str, where: str) -> None:
    """x whose last elements lie beyond 2^31 elements from the first: forward and every gradient."""
    size = {"time": (3, 2, 5), "batch": (2, 3, 5), "features": (2, 2, 3)}[where]
    far = BEYOND // 2
    stride = {"time": (far, 5, 1), "batch": (5, far, 1), "features": (10, 3, far)}[where]
    x = torch.as_strided(untouched(2 * far + 64), size, stride)
    assert sum((n - 1) * s for n, s in zip(size, stride, strict=True)) > 2**31
    x.copy_(torch.randn(size, generator=torch.Generator().manual_seed(1)))
    weights = weights_of(cell, size[-1], 4)
    results = []
    for form in (x, x.contiguous()):
        y, h_n, c_n, saved, cells = call(cell, form, weights, save=True)
        mask = [True, False, False, *[True] * 4]
        grad = torch.ones_like(y)
        grads = LAYERS_BACKWARD[cell](
            grad, None, None, form, None, None, weights, None, True, False, y, saved, cells, mask
        )
        results.append([y, h_n, c_n, grads[0], *grads[3]])
    for i, (far_off, near) in enumerate(zip(*results, strict=True)):
        assert_bitwise_equal(f"result {i}", far_off, near, f"{cell}, {where}, seeds 0, 1")


def resident() -> int:
    """The most memory that this process has had, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@pytest.mark.slow
@pytest.mark.parametrize("cell", KINDS)
def test_more_elements_than_2_31(cell: str) -> None:
    """x [T, B, I] of more than 2^31 elements, samples all alike (stride 0): as one sample, and without copying x."""
    steps, batch, inputs = 512, 2048, 2052
    gen = torch.Generator().manual_seed(1)
    one = torch.randn(steps, 1, inputs, generator=gen) / inputs
    x = one.expand(steps, batch, inputs)
    assert x.numel() > 2**31
    weights = weights_of(cell, inputs, 1)
    before = resident()
    gradients = cell == "rnn_tanh"  # of one cell: time
    y, h_n, _, saved, cells = call(cell, x, weights, save=gradients)
    alone = call(cell, one, weights, save=gradients)
    where = f"{cell}, seeds 0, 1"
    for name, many, single in (("y", y, alone[0]), ("h_n", h_n, alone[1])):
        torch.testing.assert_close(many, single.expand_as(many), msg=lambda m, n=name: f"{where}, {n}: {m}")
    assert resident() - before < 2**30, "x was copied"
    if not gradients:
        return

    mask = [False, False, False, *[True] * 4]
    grad = torch.ones_like(y)
    grads = LAYERS_BACKWARD[cell](grad, None, None, x, None, None, weights, None, True, False, y, saved, cells, mask)[3]
    assert resident() - before < 2**30, "x was copied"
    want = LAYERS_BACKWARD[cell](
        torch.ones_like(alone[0]), None, None, one, None, None, weights, None, True, False, alone[0], *alone[3:], mask
    )[3]
    for i, (many, single) in enumerate(zip(grads, want, strict=True)):
        scale = single.abs().max().item() * batch
        torch.testing.assert_close(
            many, single * batch, rtol=1e-4, atol=1e-4 * scale, msg=lambda m, i=i: f"{where}, weight {i}: {m}"
        )
