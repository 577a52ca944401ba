# SPDX-License-Identifier: Apache-2.0
"""How a series of values goes on: several steps ahead, with how sure the net is."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rnnfast.init import Init
from rnnfast.models.base import Model, recurrent, register
from rnnfast.models.distributions import Forecast
from rnnfast.models.sequences import Lengths, Steps, each_step, mask_of, pack, rows, unpack
from rnnfast.models.stepping import Stepper, evaluating

__all__ = ["OUTPUTS", "ForecastStream", "Forecaster"]

OUTPUTS = ("gaussian", "quantiles")


@register
class Forecaster(Model):
    """Forecasts x_{t+1} .. x_{t+h} from x_1 .. x_t, at every t of a sequence in one scan.

    All h steps come from the same state h_t ("direct", R. Wen et al., "A multi-horizon quantile recurrent forecaster",
    2017), as Gaussians (V. Flunkert, D. Salinas, J. Gasthaus, "DeepAR", 2017: their likelihood) or as quantiles, which
    minimise the pinball loss (R. Koenker, G. Bassett 1978) and never cross: each adds something positive to the one
    below.

    The net sees values as (x - location) / scale, with a location and a scale for each feature that :meth:`fit_scale`
    takes from the training data. They are constants, so that nothing of the future enters through them.

    Args:
        horizon: h, steps ahead.
        features: F of the input.
        targets: how many of them, the first ones, are forecast.
        hidden: H, units of each layer.
        layers: stacked recurrent layers.
        dropout: between the layers and before the output.
        cell: "rnn", "rnn_relu", "irnn", "lstm" or "gru".
        backend: "rnnfast", or "torch".
        bidirectional: refused: here so that the message can say why.
        bias: whether the recurrent layers have biases.
        output: "gaussian" or "quantiles".
        quantiles: their levels, increasing, between 0 and 1.
        residual: forecasts are differences from the last value seen: for series whose level drifts.
        init: of the recurrent module: a name of :mod:`rnnfast.init`, a pair (name, value), or a function of it.

    Shapes:
        x [T, B, F] real values, lengths [B].

    Raises:
        ValueError: bidirectional; horizon less than 1; more targets than features; quantiles not as above; an unknown
            output, cell or backend.
    """

    kind: ClassVar[str] = "forecast"
    location: Tensor
    scale: Tensor

    def __init__(
        self,
        horizon: int,
        *,
        features: int = 1,
        targets: int = 1,
        hidden: int = 64,
        layers: int = 1,
        dropout: float = 0.0,
        cell: str = "lstm",
        backend: str = "rnnfast",
        bidirectional: bool = False,
        bias: bool = True,
        output: str = "gaussian",
        quantiles: Sequence[float] = (0.1, 0.5, 0.9),
        residual: bool = False,
        init: Init = None,
    ) -> None:
        super().__init__(
            {
                "horizon": horizon,
                "features": features,
                "targets": targets,
                "hidden": hidden,
                "layers": layers,
                "dropout": dropout,
                "cell": cell,
                "backend": backend,
                "bidirectional": bidirectional,
                "bias": bias,
                "output": output,
                "quantiles": list(quantiles),
                "residual": residual,
            }
        )
        if bidirectional:
            raise ValueError(
                "Forecaster: bidirectional: a net that also reads from the end has seen the values that it is to "
                "forecast: in training it would copy them, in use they are not there; expected False"
            )
        if horizon < 1:
            raise ValueError(f"Forecaster: horizon: expected at least 1, got {horizon}")
        if not 1 <= targets <= features:
            raise ValueError(f"Forecaster: targets: expected 1 to {features}, the number of features, got {targets}")
        if output not in OUTPUTS:
            raise ValueError(f"Forecaster: output: expected 'gaussian' or 'quantiles', got {output!r}")
        levels = [0.0, *quantiles, 1.0]
        if len(levels) < 3 or any(not a < b for a, b in pairwise(levels)):
            raise ValueError(
                f"Forecaster: quantiles: expected increasing levels between 0 and 1, got {list(quantiles)}"
            )
        self.horizon, self.features, self.targets, self.residual = horizon, features, targets, residual
        self.levels = tuple(quantiles) if output == "quantiles" else None
        self.rnn = recurrent(cell, features, hidden, layers, backend=backend, bias=bias, dropout=dropout, init=init)
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(hidden, horizon * targets * (2 if self.levels is None else len(self.levels)))
        self.register_buffer("location", torch.zeros(features))
        self.register_buffer("scale", torch.ones(features))

    @torch.no_grad()
    def fit_scale(self, x: Tensor, lengths: Lengths = None) -> None:
        """Location and scale from the mean and standard deviation of training data x [T, B, F]; padding does not count.

        Raises:
            ValueError: a feature that is not finite.
        """
        values = rows(pack("Forecaster.fit_scale", x, lengths, 3)[0])
        if not values.isfinite().all():
            raise ValueError("Forecaster.fit_scale: input: expected finite values")
        spread = values.std(0, correction=0)
        self.location.copy_(values.mean(0))
        self.scale.copy_(torch.where(spread > 0, spread, torch.ones_like(spread)))

    def forward(self, x: Tensor, lengths: Lengths = None) -> Forecast:
        """The forecast made at every step t, of x_{t+1} .. x_{t+h}: [T, B, horizon, targets]; padding: meaningless."""
        parameters = self._raw(x, lengths)[0]
        return self._forecast(unpack(parameters, len(x)), x[..., : self.targets])

    def loss(self, x: Tensor, lengths: Lengths = None) -> Tensor:
        """Mean over all steps, horizons and targets whose value lies inside x of -log density, or of the pinball loss
        (summed over the quantiles); of scaled values.

        Raises:
            ValueError: no sequence has two values, so that there is nothing to forecast.
        """
        parameters, checked = self._raw(x, lengths)
        steps, batch = x.shape[:2]
        inside = mask_of(checked, steps, batch, x.device)
        known = inside.new_zeros(steps, batch, self.horizon)  # is the value k+1 steps after t one of x?
        future = torch.arange(steps, device=x.device)[:, None] + torch.arange(1, self.horizon + 1, device=x.device)
        for k in range(min(self.horizon, steps - 1)):
            known[: steps - k - 1, :, k] = inside[k + 1 :]
        if not known.any():
            raise ValueError("Forecaster.loss: input: expected a sequence of at least 2 values, to forecast the second")
        wanted = x[future.clamp(max=steps - 1)].transpose(1, 2)[known]  # [N, F] of [T, B, horizon, F]
        wanted = self._scaled(wanted)[:, : self.targets]
        if self.residual:
            last = x[:, :, None].expand(-1, -1, self.horizon, -1)[known]
            wanted = wanted - self._scaled(last)[:, : self.targets]
        return self._losses(unpack(parameters, steps)[known], wanted).mean()

    def forecast(self, x: Tensor, lengths: Lengths = None) -> Forecast:
        """What follows each sample's last step: [B, horizon, targets]. In eval mode."""
        with evaluating(self):
            parameters, checked = self._raw(x, lengths)
            batch = torch.arange(x.shape[1], device=x.device)
            last = torch.full_like(batch, len(x) - 1) if checked is None else checked.to(x.device) - 1
            return self._forecast(unpack(parameters, len(x))[last, batch], x[last, batch][:, : self.targets])

    def stream(self, batch_size: int = 1) -> "ForecastStream":
        """A forecast after each value as it comes; the state stays inside. The weights are a snapshot."""
        return ForecastStream(self, batch_size)

    def _scaled(self, x: Tensor) -> Tensor:
        return (x - self.location) / self.scale

    def _raw(self, x: Tensor, lengths: Lengths) -> tuple[Steps, Tensor | None]:
        """The output layer's values for each step, [..., horizon, targets, 2 or quantiles], and the lengths."""
        if x.dim() == 3 and x.shape[2] != self.features:
            raise ValueError(f"Forecaster: input: expected [T, B, {self.features}], got {list(x.shape)}")
        steps, checked = pack("Forecaster", x, lengths, 3)
        y = self.rnn(each_step(self._scaled, steps))[0]
        return each_step(lambda v: self._read(self.dropout(v)), y), checked

    def _read(self, y: Tensor) -> Tensor:
        """[..., H] -> [..., horizon, targets, P] of scaled values: mean and scale, or quantiles that grow."""
        raw = self.output(y).unflatten(-1, (self.horizon, self.targets, -1))
        if self.levels is None:
            return torch.stack([raw[..., 0], F.softplus(raw[..., 1]) + 1e-4], -1)
        return torch.cat([raw[..., :1], F.softplus(raw[..., 1:])], -1).cumsum(-1)

    def _losses(self, parameters: Tensor, wanted: Tensor) -> Tensor:
        """parameters [N, targets, 2 or quantiles], wanted [N, targets], scaled values -> [N, targets]."""
        if self.levels is None:
            mean, scale = parameters.unbind(-1)
            return 0.5 * ((wanted - mean) / scale) ** 2 + scale.log() + 0.5 * math.log(2 * math.pi)
        levels = torch.tensor(self.levels, dtype=parameters.dtype, device=parameters.device)
        error = wanted[..., None] - parameters
        return torch.maximum(levels * error, (levels - 1) * error).sum(-1)

    def _forecast(self, parameters: Tensor, last: Tensor) -> Forecast:
        """Back to the series' own values. parameters [..., horizon, targets, P], last [..., targets] the value at t."""
        location, scale = self.location[: self.targets], self.scale[: self.targets]
        base = last[..., None, :] if self.residual else location
        if self.levels is None:
            return Forecast(mean=parameters[..., 0] * scale + base, scale=parameters[..., 1] * scale)
        return Forecast(values=parameters * scale[:, None] + base[..., None], levels=self.levels)


class ForecastStream:
    """What :meth:`Forecaster.stream` gives: `s(x)` takes one step x [B, features] and returns its Forecast, tensors
    [B, horizon, targets]; a chunk x [T, B, features] gives [T, B, horizon, targets]."""

    def __init__(self, model: Forecaster, batch_size: int) -> None:
        self._model = model
        self._shape = [batch_size, model.features]
        self._stepper = Stepper(model.rnn, batch_size)

    @torch.no_grad()
    def __call__(self, x: Tensor) -> Forecast:
        """See the class."""
        if x.dim() not in (2, 3) or list(x.shape[-2:]) != self._shape:
            raise ValueError(
                f"Forecaster.stream: input: expected {self._shape} or a chunk of such, got {list(x.shape)}"
            )
        model: Any = self._model
        parameters = model._read(self._stepper(model._scaled(x)))
        return model._forecast(parameters, x[..., : model.targets])

    def reset(self) -> None:
        """Another series begins."""
        self._stepper.reset()
