# SPDX-License-Identifier: Apache-2.0
"""rnnfast.LSTM and torch.nn.LSTM with the same weights on the same input; equality is shown before any clock runs."""

from collections.abc import Callable

import torch
from torch import nn

import rnnfast
from benchmarks.cases import Case


def modules(case: Case) -> dict[str, nn.Module]:
    """Both rivals, with the same parameters."""
    torch.manual_seed(0)
    theirs = nn.LSTM(case.I, case.H)
    ours = rnnfast.LSTM(case.I, case.H)
    ours.load_state_dict(theirs.state_dict())
    return {"rnnfast": ours, "torch": theirs}


def call(case: Case, module: nn.Module, x: torch.Tensor, grad: torch.Tensor) -> Callable[[], list[torch.Tensor]]:
    """What is timed; it returns all that was computed."""
    if case.mode == "training":
        x = x.clone().requires_grad_()
        inputs = [x, *module.parameters()]

        def train() -> list[torch.Tensor]:
            y, _ = module(x)
            return [y, *torch.autograd.grad(y, inputs, grad)]

        return train

    def infer() -> list[torch.Tensor]:
        with torch.no_grad():
            y, (h, c) = module(x)
        return [y, h, c]

    return infer


def verified(case: Case) -> dict[str, Callable[[], list[torch.Tensor]]]:
    """The calls of both rivals, after comparing everything they compute."""
    torch.manual_seed(1)
    x, grad = torch.randn(case.T, case.B, case.I), torch.randn(case.T, case.B, case.H)
    calls = {name: call(case, module, x, grad) for name, module in modules(case).items()}
    for ours, theirs in zip(calls["rnnfast"](), calls["torch"](), strict=True):
        error, scale = (ours - theirs).abs().max().item(), theirs.abs().max().item()
        if not error <= 1e-4 * scale:
            raise RuntimeError(f"{case}: rnnfast and torch.nn disagree by {error:.2e} of {scale:.2e}")
    return calls
