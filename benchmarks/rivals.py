# SPDX-License-Identifier: Apache-2.0
"""rnnfast and torch.nn with the same weights on the same input; equality is shown before any clock runs."""

from collections.abc import Callable
from types import ModuleType

import torch
from torch import Tensor, nn

import rnnfast
from benchmarks.cases import Case
from rnnfast.specs import CELLS

RIVALS: dict[str, ModuleType] = {"rnnfast": rnnfast, "torch": nn}


def module(case: Case, rival: str) -> nn.Module:
    """The module of one rival; the same seed gives both the same parameters."""
    spec = CELLS[case.cell]
    options = {} if spec.nonlinearity is None else {"nonlinearity": spec.nonlinearity}
    torch.manual_seed(0)
    cls = getattr(RIVALS[rival], spec.label)
    made: nn.Module = cls(case.I, case.H, case.layers, bidirectional=case.directions == 2, **options)
    return made


def data(case: Case) -> tuple[Tensor, Tensor]:
    """x [T, B, I] and the gradient of the output [T, B, D*H]."""
    torch.manual_seed(1)
    return torch.randn(case.T, case.B, case.I), torch.randn(case.T, case.B, case.directions * case.H)


def call(case: Case, module: nn.Module, x: Tensor, grad: Tensor) -> Callable[[], list[Tensor]]:
    """What is measured; it returns all that was computed: outputs, final states, gradients."""
    if case.trains:
        x = x.clone().requires_grad_()
        inputs = [x, *module.parameters()]

        def train() -> list[Tensor]:
            y, states = module(x)
            return [y, *_flat(states), *torch.autograd.grad(y, inputs, grad)]

        return train
    state = None
    if case.mode == "streaming":  # a stream carries its state on
        shape = (case.layers * case.directions, case.B, case.H)
        h, c = torch.rand(shape), torch.rand(shape)
        state = (h, c) if CELLS[case.cell].has_cell else h

    def infer() -> list[Tensor]:
        with torch.no_grad():
            y, states = module(x, state)
        return [y, *_flat(states)]

    return infer


def verified(case: Case) -> dict[str, Callable[[], list[Tensor]]]:
    """The calls of both rivals, after comparing everything they compute."""
    x, grad = data(case)
    calls = {}
    for rival in RIVALS:
        torch.manual_seed(2)
        calls[rival] = call(case, module(case, rival), x, grad)
    for ours, theirs in zip(calls["rnnfast"](), calls["torch"](), strict=True):
        error, scale = (ours - theirs).abs().max().item(), theirs.abs().max().item()
        if not error <= 1e-4 * scale:
            raise RuntimeError(f"{case}: rnnfast and torch.nn disagree by {error:.2e} of {scale:.2e}")
    return calls


def _flat(states: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (states,) if isinstance(states, Tensor) else states
