# SPDX-License-Identifier: Apache-2.0
"""What a forecast says: a Gaussian, or quantiles, for every step ahead."""

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Forecast"]


@dataclass(frozen=True)
class Forecast:
    """The distribution of future values, in the series' own units; tensors [..., horizon, targets].

    A Gaussian one has `mean` and `scale` (the standard deviation); one of quantiles has `levels` (q of them) and
    `values` [..., horizon, targets, q].
    """

    mean: Tensor | None = None
    scale: Tensor | None = None
    values: Tensor | None = None
    levels: tuple[float, ...] | None = None

    @property
    def median(self) -> Tensor:
        """The value that is exceeded as often as not."""
        return self.quantile(0.5)

    def quantile(self, p: float) -> Tensor:
        """The value not exceeded with probability p, [..., horizon, targets]. Between quantiles: on the line.

        Raises:
            ValueError: p not between 0 and 1, or outside the levels of a forecast of quantiles.
        """
        if not 0 < p < 1:
            raise ValueError(f"Forecast.quantile: p: expected a number between 0 and 1, got {p}")
        if self.mean is not None and self.scale is not None:
            standard = torch.special.ndtri(torch.tensor(p, dtype=self.mean.dtype, device=self.mean.device))
            return self.mean + self.scale * standard
        assert self.values is not None
        assert self.levels is not None
        if not self.levels[0] <= p <= self.levels[-1]:
            raise ValueError(f"Forecast.quantile: p: this forecast has {self.levels[0]} to {self.levels[-1]}, got {p}")
        above = next(i for i, level in enumerate(self.levels) if level >= p)
        if self.levels[above] == p:
            return self.values[..., above]
        low, high = self.levels[above - 1], self.levels[above]
        return self.values[..., above - 1].lerp(self.values[..., above], (p - low) / (high - low))
