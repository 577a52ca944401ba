# SPDX-License-Identifier: Apache-2.0
"""A linear-chain conditional random field: labels that depend on their neighbours."""

import torch
from torch import Tensor, nn

__all__ = ["LinearChainCRF"]


class LinearChainCRF(nn.Module):
    """P(labels | emissions) over whole label sequences (J. Lafferty, A. McCallum, F. Pereira 2001)::

        score(y) = start[y_1] + sum_t emissions[t, y_t] + sum_t transitions[y_{t-1}, y_t] + end[y_T]
        P(y) = exp(score(y)) / sum over all y' of exp(score(y'))

    All samples of a batch go through each step together; padding is passed over, its emissions have no influence.

    Args:
        labels: K.

    Shapes:
        emissions [T, B, K], labels [T, B] int64, mask [T, B] bool: true for the steps of a sample, which come first.
    """

    def __init__(self, labels: int) -> None:
        super().__init__()
        self.transitions = nn.Parameter(torch.empty(labels, labels))  # from row to column
        self.start = nn.Parameter(torch.empty(labels))
        self.end = nn.Parameter(torch.empty(labels))
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -0.1, 0.1)

    def log_prob(self, emissions: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
        """log P(labels | emissions), [B]."""
        return self.score(emissions, labels, mask) - self.log_partition(emissions, mask)

    def score(self, emissions: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
        """The unnormalised score of given labels, [B]."""
        labels = labels.masked_fill(~mask, 0)
        emitted = emissions.gather(-1, labels[..., None])[..., 0].masked_fill(~mask, 0).sum(0)
        moved = self.transitions[labels[:-1], labels[1:]].masked_fill(~mask[1:], 0).sum(0)
        last = labels.gather(0, mask.sum(0, keepdim=True) - 1)[0]
        return self.start[labels[0]] + emitted + moved + self.end[last]

    def log_partition(self, emissions: Tensor, mask: Tensor) -> Tensor:
        """log of the sum of exp(score) over all label sequences, [B]: the forward algorithm."""
        alpha = self.start + emissions[0]  # [B, K]: all sequences up to here that end in this label
        for emission, inside in zip(emissions[1:], mask[1:], strict=True):
            step = torch.logsumexp(alpha[:, :, None] + self.transitions, 1) + emission
            alpha = torch.where(inside[:, None], step, alpha)
        return torch.logsumexp(alpha + self.end, -1)

    @torch.no_grad()
    def decode(self, emissions: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """The labels of the highest score [T, B], 0 in the padding, and that score [B] (A. Viterbi 1967)."""
        best = self.start + emissions[0]
        stay = torch.arange(best.shape[1], device=best.device).expand_as(best)
        came_from = []
        for emission, inside in zip(emissions[1:], mask[1:], strict=True):
            score, source = (best[:, :, None] + self.transitions).max(1)
            best = torch.where(inside[:, None], score + emission, best)
            came_from.append(torch.where(inside[:, None], source, stay))  # in the padding each label came from itself
        highest, label = (best + self.end).max(-1)
        path = [label]
        for source in reversed(came_from):
            path.append(source.gather(1, path[-1][:, None])[:, 0])
        return torch.stack(path[::-1]).masked_fill(~mask, 0), highest
