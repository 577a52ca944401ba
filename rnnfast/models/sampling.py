# SPDX-License-Identifier: Apache-2.0
"""Drawing the next symbol from a model's logits."""

import torch
from torch import Tensor

__all__ = ["check_sampling", "draw", "restrict"]


def check_sampling(who: str, temperature: float, top_k: int | None, top_p: float | None) -> None:
    """ValueError for values outside temperature >= 0, top_k >= 1, 0 < top_p <= 1."""
    if not temperature >= 0:
        raise ValueError(f"{who}: temperature: expected at least 0, got {temperature}")
    if top_k is not None and top_k < 1:
        raise ValueError(f"{who}: top_k: expected at least 1, got {top_k}")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError(f"{who}: top_p: expected a number above 0 and up to 1, got {top_p}")


def restrict(logits: Tensor, top_k: int | None = None, top_p: float | None = None) -> Tensor:
    """Logits [B, V] with -inf for all that may not be drawn.

    Args:
        logits: of the next symbol.
        top_k: only the k most probable remain (A. Fan et al., "Hierarchical neural story generation", 2018).
        top_p: of those, only the fewest whose probabilities add up to at least p (A. Holtzman et al., "The curious case
            of neural text degeneration", 2020).
    """
    if top_k is not None and top_k < logits.shape[-1]:
        kept = logits.topk(top_k, -1)
        logits = torch.full_like(logits, -torch.inf).scatter(-1, kept.indices, kept.values)
    if top_p is not None and top_p < 1:
        ordered, order = logits.sort(-1, descending=True)
        probabilities = ordered.softmax(-1)
        reached = probabilities.cumsum(-1) - probabilities >= top_p  # by those before: the first is never left out
        logits = torch.full_like(logits, -torch.inf).scatter(-1, order, ordered.masked_fill(reached, -torch.inf))
    return logits


def draw(
    logits: Tensor,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """One symbol a sample, [B], from logits [B, V]; temperature 0: the most probable one."""
    if temperature == 0:
        return logits.argmax(-1)
    probabilities = restrict(logits / temperature, top_k, top_p).softmax(-1)
    return torch.multinomial(probabilities, 1, generator=generator)[:, 0]
