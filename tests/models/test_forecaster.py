# SPDX-License-Identifier: Apache-2.0
"""The forecaster: likelihood and pinball loss by hand, nothing of the future, streams, scaling."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rnnfast.models import Forecast, Forecaster
from tests.models.samples import MODELS

KINDS = ["forecast-gaussian", "forecast-quantiles"]


def silent(**options: object) -> Forecaster:
    """Weights zero: the output's bias is all there is."""
    model = Forecaster(**({"hidden": 3} | options)).double()  # type: ignore[arg-type]
    with torch.no_grad():
        for p in model.parameters():
            p.zero_()
    return model


def inverse_softplus(x: float) -> float:
    return math.log(math.expm1(x))


def test_gaussian_loss_by_hand() -> None:
    """One step ahead mean 1, deviation 2; two ahead mean -1, deviation 1/2. One sample of 1 3 0, another of 5 6."""
    model = silent(horizon=2)
    with torch.no_grad():
        model.output.bias.copy_(
            torch.tensor([1, inverse_softplus(2 - 1e-4), -1, inverse_softplus(0.5 - 1e-4)], dtype=torch.float64)
        )
    x = torch.tensor([[1, 5], [3, 6], [0, 999]], dtype=torch.float64)[..., None]

    def minus_log_density(v: float, mean: float, scale: float) -> float:
        return math.log(scale * math.sqrt(2 * math.pi)) + (v - mean) ** 2 / (2 * scale**2)

    terms = [minus_log_density(v, 1, 2) for v in (3, 0, 6)] + [minus_log_density(0, -1, 0.5)]
    assert model.loss(x, [3, 2]).item() == pytest.approx(sum(terms) / 4, rel=1e-12)
    f = model.forecast(x, [3, 2])
    np.testing.assert_allclose(f.mean[..., 0], [[1, -1]] * 2, rtol=1e-12)
    np.testing.assert_allclose(f.scale[..., 0], [[2, 0.5]] * 2, rtol=1e-12)
    assert f.quantile(0.8413447460685429)[0, 0, 0].item() == pytest.approx(3, rel=1e-9), "one deviation above"


def test_quantile_loss_by_hand() -> None:
    """The quantile of 1/4 is 0, that of 3/4 is 2. Values of 3 and -1 cost 3/4 + 3/4 each, 1 costs 1/4 + 1/4."""
    model = silent(horizon=1, output="quantiles", quantiles=(0.25, 0.75))
    with torch.no_grad():
        model.output.bias.copy_(torch.tensor([0, inverse_softplus(2)], dtype=torch.float64))
    x = torch.tensor([9.0, 3, -1, 1], dtype=torch.float64)[:, None, None]
    assert model.loss(x).item() == pytest.approx((3 / 4 + 3 / 4 + 3 / 4 + 3 / 4 + 1 / 4 + 1 / 4) / 3, rel=1e-12)
    f = model.forecast(x)
    assert [f.quantile(p).item() for p in (0.25, 0.5, 0.75)] == pytest.approx([0, 1, 2], rel=1e-12)
    assert f.median.item() == pytest.approx(1)


def test_residual_and_scale_by_hand() -> None:
    """location 10, scale 2: a residual forecast of half a scale more than the last value, 13, is 14."""
    model = silent(horizon=1, residual=True)
    x = torch.tensor([8.0, 12, 8, 12, 13], dtype=torch.float64)[:, None, None]
    model.fit_scale(x[:4])
    assert (model.location.item(), model.scale.item()) == (10, 2)
    with torch.no_grad():
        model.output.bias[0] = 0.5
        model.output.bias[1] = inverse_softplus(1 - 1e-4)
    f = model.forecast(x)
    assert f.mean.item() == pytest.approx(14)
    assert f.scale.item() == pytest.approx(2)
    z = [(b - a) / 2 - 0.5 for a, b in ((8, 12), (12, 8), (8, 12), (12, 13))]
    want = sum(0.5 * math.log(2 * math.pi) + v * v / 2 for v in z) / 4
    assert model.loss(x).item() == pytest.approx(want, rel=1e-12)


@pytest.mark.parametrize("name", KINDS)
@given(t=st.integers(0, 5), seed=st.integers(0, 99))
@settings(max_examples=10, deadline=None)
def test_no_future_is_seen(name: str, t: int, seed: int) -> None:
    torch.manual_seed(seed)
    model = MODELS[name]().eval()
    x = torch.randn(7, 2, 4)
    other = x.clone()
    other[t + 1 :] = torch.randn(6 - t, 2, 4) * 10
    a, b = model(x).median, model(other).median
    torch.testing.assert_close(b[: t + 1], a[: t + 1], rtol=0, atol=1e-6)
    assert not torch.equal(a[t + 1 :], b[t + 1 :])


@pytest.mark.parametrize("backend", ["rnnfast", "torch"])
@pytest.mark.parametrize("name", KINDS)
def test_stream_is_the_whole_sequence(name: str, backend: str) -> None:
    model = MODELS[name](backend=backend, dropout=0.5).double().train()
    x = 3 + 2 * torch.randn(7, 2, 4, dtype=torch.float64)
    model.fit_scale(x)
    stream = model.stream(2)
    got = torch.cat([torch.stack([stream(x[t]).quantile(0.3) for t in range(4)]), stream(x[4:]).quantile(0.3)])
    whole = model.eval()(x)
    torch.testing.assert_close(got, whole.quantile(0.3).detach())
    torch.testing.assert_close(model.forecast(x).median, whole.median[-1].detach())
    torch.testing.assert_close(model.forecast(x, [7, 3]).median[1], whole.median[2, 1].detach())
    stream.reset()
    torch.testing.assert_close(stream(x[0]).quantile(0.3), got[0])
    with pytest.raises(ValueError, match=r"expected \[2, 4\] or a chunk of such, got \[4\]"):
        stream(x[0, 0])


@pytest.mark.parametrize("name", KINDS)
def test_units_do_not_matter(name: str) -> None:
    """A series in other units gives the same loss, and its forecasts in those units: the scaling is inside."""
    model = MODELS[name]().double().eval()
    x = torch.randn(9, 2, 4, dtype=torch.float64)
    model.fit_scale(x)
    loss, forecast = model.loss(x), model(x).quantile(0.9)
    model.fit_scale(100 * x - 7)
    torch.testing.assert_close(model.loss(100 * x - 7), loss)
    torch.testing.assert_close(model(100 * x - 7).quantile(0.9), 100 * forecast - 7)


def test_fit_scale_leaves_padding_out() -> None:
    x = torch.tensor([[1.0, 7.0], [3.0, math.nan]])[..., None]
    model = Forecaster(1)
    model.fit_scale(x, [2, 1])
    assert model.location.item() == pytest.approx(11 / 3)
    model.fit_scale(torch.full((3, 1, 1), 5.0))
    assert model.scale.item() == 1, "a constant series"
    with pytest.raises(ValueError, match="fit_scale: input: expected finite values"):
        model.fit_scale(x)


@given(seed=st.integers(0, 999))
@settings(max_examples=20, deadline=None)
def test_quantiles_never_cross(seed: int) -> None:
    torch.manual_seed(seed)
    model = Forecaster(3, output="quantiles", quantiles=(0.05, 0.3, 0.5, 0.9), hidden=4)
    for p in model.parameters():
        torch.nn.init.normal_(p, std=5)
    f = model.forecast(torch.randn(5, 2, 1) * 10)
    assert (f.values.diff(dim=-1) >= 0).all()
    levels = [0.05, 0.1, 0.3, 0.4, 0.5, 0.7, 0.9]
    values = [f.quantile(p) for p in levels]
    assert all((a <= b + 1e-4).all() for a, b in pairwise(values))


def test_forecast_between_levels() -> None:
    f = Forecast(values=torch.tensor([1.0, 3.0, 4.0]), levels=(0.1, 0.5, 0.9))
    assert f.quantile(0.3).item() == pytest.approx(2)
    assert f.median.item() == 3
    for p, message in ((0.05, "this forecast has 0.1 to 0.9, got 0.05"), (1.0, "between 0 and 1"), (0.0, "between")):
        with pytest.raises(ValueError, match=message):
            f.quantile(p)


def test_bidirectional_is_refused() -> None:
    with pytest.raises(ValueError, match="bidirectional: a net that also reads from the end has seen the values"):
        Forecaster(3, bidirectional=True)


def test_bad_arguments() -> None:
    for options, message in (
        ({"horizon": 0}, "horizon: expected at least 1, got 0"),
        ({"horizon": 1, "features": 2, "targets": 3}, "targets: expected 1 to 2, the number of features, got 3"),
        ({"horizon": 1, "output": "bars"}, "output: expected 'gaussian' or 'quantiles', got 'bars'"),
        ({"horizon": 1, "quantiles": (0.5, 0.5)}, "quantiles: expected"),
        ({"horizon": 1, "quantiles": ()}, "quantiles: expected"),
        ({"horizon": 1, "quantiles": (0.0, 0.5)}, "quantiles: expected"),
    ):
        with pytest.raises(ValueError, match=message):
            Forecaster(**options)
    model = Forecaster(2)
    with pytest.raises(ValueError, match=r"input: expected \[T, B, 1\], got \[3, 1, 2\]"):
        model.loss(torch.zeros(3, 1, 2))
    with pytest.raises(ValueError, match="expected a sequence of at least 2 values"):
        model.loss(torch.zeros(3, 2, 1), [1, 1])
