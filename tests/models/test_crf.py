# SPDX-License-Identifier: Apache-2.0
"""The CRF against all label sequences there are."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rnnfast.models import LinearChainCRF


def mask_for(lengths: list[int], steps: int) -> torch.Tensor:
    return torch.arange(steps)[:, None] < torch.tensor(lengths)


def scores(crf: LinearChainCRF, emissions: np.ndarray) -> dict[tuple[int, ...], float]:
    """The score of every label sequence of one sample, emissions [T, K], added up term by term."""
    start, end, move = (p.detach().numpy() for p in (crf.start, crf.end, crf.transitions))
    steps, labels = emissions.shape
    out = {}
    for y in itertools.product(range(labels), repeat=steps):
        s = start[y[0]] + end[y[-1]] + sum(emissions[t, y[t]] for t in range(steps))
        out[y] = s + sum(move[a, b] for a, b in itertools.pairwise(y))
    return out


def test_by_hand() -> None:
    """Two labels, two steps: the four sequences have weights 1, 2, 1 and 6."""
    crf = LinearChainCRF(2).double()
    with torch.no_grad():
        for p in crf.parameters():
            p.zero_()
        crf.transitions[0, 1] = math.log(2)
        crf.transitions[1, 1] = math.log(6)
    emissions, mask = torch.zeros(2, 1, 2, dtype=torch.float64), torch.ones(2, 1, dtype=torch.bool)
    for y, weight in (((0, 0), 1), ((0, 1), 2), ((1, 0), 1), ((1, 1), 6)):
        got = crf.log_prob(emissions, torch.tensor(y)[:, None], mask)
        assert got.item() == pytest.approx(math.log(weight / 10), rel=1e-12)
    path, score = crf.decode(emissions, mask)
    assert path[:, 0].tolist() == [1, 1]
    assert score.item() == pytest.approx(math.log(6), rel=1e-12)


@given(labels=st.integers(1, 4), lengths=st.lists(st.integers(1, 4), min_size=1, max_size=4), seed=st.integers(0, 999))
@settings(max_examples=30, deadline=None)
def test_against_enumeration(labels: int, lengths: list[int], seed: int) -> None:
    torch.manual_seed(seed)
    steps = max(lengths)
    crf = LinearChainCRF(labels).double()
    for p in crf.parameters():
        torch.nn.init.normal_(p)
    emissions = 2 * torch.randn(steps, len(lengths), labels, dtype=torch.float64)
    target = torch.randint(labels, (steps, len(lengths)))
    mask = mask_for(lengths, steps)
    log_z, log_p = crf.log_partition(emissions, mask), crf.log_prob(emissions, target, mask)
    path, best = crf.decode(emissions, mask)
    for b, n in enumerate(lengths):
        every = scores(crf, emissions[:n, b].numpy())
        want_z = np.logaddexp.reduce(list(every.values()))
        assert log_z[b].item() == pytest.approx(want_z, rel=1e-10), f"seed {seed}, sample {b}"
        y = tuple(target[:n, b].tolist())
        assert log_p[b].item() == pytest.approx(every[y] - want_z, rel=1e-9, abs=1e-10), f"seed {seed}, sample {b}"
        top = max(every, key=lambda y: every[y])
        assert tuple(path[:n, b].tolist()) == top, f"seed {seed}, sample {b}"
        assert not path[n:, b].any()
        assert best[b].item() == pytest.approx(every[top], rel=1e-10)


def test_gradients() -> None:
    """Finite differences in emissions, transitions, start and end, with padding."""
    crf = LinearChainCRF(3).double()
    mask = mask_for([4, 2], 4)
    target = torch.randint(3, (4, 2))
    emissions = torch.randn(4, 2, 3, dtype=torch.float64, requires_grad=True)
    parameters = [p.detach().clone().requires_grad_() for p in crf.parameters()]
    names = [n for n, _ in crf.named_parameters()]

    class Scored(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.crf = crf

        def forward(self, emissions: torch.Tensor) -> torch.Tensor:
            return self.crf.log_prob(emissions, target, mask)

    def run(emissions: torch.Tensor, *values: torch.Tensor) -> torch.Tensor:
        weights = {f"crf.{n}": v for n, v in zip(names, values, strict=True)}
        return torch.func.functional_call(Scored(), weights, (emissions,))

    assert torch.autograd.gradcheck(run, (emissions, *parameters))


def test_long_and_extreme() -> None:
    """Thousands of steps and large scores neither overflow nor vanish, in float32."""
    crf = LinearChainCRF(5)
    emissions = 100 * torch.randn(2000, 2, 5)
    emissions.requires_grad_()
    mask = mask_for([2000, 1], 2000)
    path, _ = crf.decode(emissions, mask)
    log_p = crf.log_prob(emissions, path, mask)
    assert log_p.isfinite().all()
    log_p.sum().backward()
    assert emissions.grad is not None
    assert emissions.grad.isfinite().all()
    assert not emissions.grad[1:, 1].any(), "padding has no gradient"
