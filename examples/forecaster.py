# SPDX-License-Identifier: Apache-2.0
"""Forecast a series several steps ahead, with intervals, and go on as values come in."""

import torch

from rnnfast.models import Forecaster

HORIZON, TEST = 12, 120


def main(updates: int = 200) -> float:
    torch.manual_seed(0)
    t = torch.arange(600.0)
    cycle = t / 11.3  # a cycle that is no whole number of steps, of changing height
    series = 50 + (20 + 8 * torch.sin(t / 60)) * torch.sin(2 * torch.pi * cycle) + 3 * torch.randn(600)
    x = series[:, None, None]  # [T, B=1, F=1]
    train = x[:-TEST]

    model = Forecaster(HORIZON, hidden=32, cell="gru", output="quantiles", quantiles=(0.1, 0.5, 0.9))
    model.fit_scale(train)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    windows = train[:, 0].unfold(0, 120, 20).permute(2, 0, 1)  # [120, windows, 1]: pieces of the past
    for _ in range(updates):
        optimizer.zero_grad()
        model.loss(windows).backward()
        optimizer.step()

    # Rolling origin: at every step of the test part, the forecast of what comes after it. One value at a time.
    stream = model.stream()
    stream(train)
    errors, naive, inside = [], [], []
    for i in range(len(x) - TEST, len(x) - HORIZON):
        forecast = stream(x[i])
        future = x[i + 1 : i + 1 + HORIZON, 0, 0]
        season = x[i + 1 - 11 : i + 1, 0, 0].repeat(2)[:HORIZON]  # the last 11 values once more
        errors.append((forecast.median[0, :, 0] - future).abs().mean())
        naive.append((season - future).abs().mean())
        inside.append(
            ((future > forecast.quantile(0.1)[0, :, 0]) & (future < forecast.quantile(0.9)[0, :, 0])).float().mean()
        )
    error, other = torch.stack(errors).mean().item(), torch.stack(naive).mean().item()
    print(f"mean error of {HORIZON} steps ahead: {error:.2f}; repeating the last season: {other:.2f}")
    print(f"{torch.stack(inside).mean():.0%} of the values lie between the quantiles 0.1 and 0.9")
    return error / other


if __name__ == "__main__":
    main()
