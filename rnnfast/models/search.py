# SPDX-License-Identifier: Apache-2.0
"""Beam search over a batch, for any decoder that gives log-probabilities one step at a time."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

__all__ = ["Hypotheses", "beam_search", "select"]


class Hypotheses(NamedTuple):
    """symbols [B, K, U] (without start; `end` from each one's end on), lengths [B, K] (without end), scores [B, K]."""

    symbols: Tensor
    lengths: Tensor
    scores: Tensor


def select(state: Any, rows: Tensor) -> Any:
    """The rows of a recurrent state: of [L, B, H], or of each part of a tuple."""
    if isinstance(state, tuple):
        return tuple(select(part, rows) for part in state)
    return state.index_select(1, rows)


def beam_search(
    step: Callable[[Tensor, Any], tuple[Tensor, Any]],
    state: Any,
    start: Tensor,
    size: int,
    end: int,
    max_length: int,
    length_penalty: float = 0.0,
) -> Hypotheses:
    """The K = size best sequences that a beam of K finds for each sample.

    Hypotheses that have ended stay in the beam and compete with those that have not, each by log P / n**length_penalty,
    n its symbols with the end. With a beam that holds all sequences the result is exact.

    Args:
        step: (symbols [B*K], state) -> log-probabilities [B*K, V] of the next symbols, and the state after.
        state: before the first step, [L, B*K, H] or a tuple of such: each sample K times in a row.
        start: the symbol before each sample's sequences, [B].
        end: the symbol that ends a sequence.
        max_length: most symbols before the end.
    """
    batch, device = len(start), start.device
    symbols = start[:, None].expand(batch, size)
    written = symbols[..., :0].reshape(batch, size, 0)
    lengths = torch.zeros(batch, size, dtype=torch.int64, device=device)
    ended = torch.zeros(batch, size, dtype=torch.bool, device=device)
    scores = torch.full((batch, size), -torch.inf, device=device)
    scores[:, 0] = 0.0  # all K are the same at first: one goes on
    first_row = torch.arange(batch, device=device)[:, None] * size
    for n in range(1, max_length + 2):
        log_p, state = step(symbols.flatten(), state)
        log_p = log_p.view(batch, size, -1)
        is_end = torch.arange(log_p.shape[-1], device=device) == end
        if n > max_length:
            log_p = log_p.masked_fill(~is_end, -torch.inf)
        log_p = torch.where(ended[..., None], torch.where(is_end, 0.0, -torch.inf).to(log_p.dtype), log_p)
        total = scores[..., None].to(log_p.dtype) + log_p
        count = torch.where(ended, lengths + 1, n)[..., None]
        best = (total / count**length_penalty).flatten(1).topk(size)
        parent, symbols = best.indices // len(is_end), best.indices % len(is_end)
        scores = total.flatten(1).gather(1, best.indices)
        lengths, ended = lengths.gather(1, parent), ended.gather(1, parent)
        lengths = lengths + (~ended & (symbols != end))
        ended = ended | (symbols == end) | scores.isneginf()
        written = torch.cat([written.gather(1, parent[..., None].expand_as(written)), symbols[..., None]], -1)
        if ended.all():
            break
        state = select(state, (first_row + parent).flatten())
    impossible = scores.isneginf()
    return Hypotheses(
        written.masked_fill(impossible[..., None], end)[..., : max(1, int(lengths.max()))],
        lengths.masked_fill(impossible, 0),
        scores,
    )
