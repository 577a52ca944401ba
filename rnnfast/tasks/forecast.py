# SPDX-License-Identifier: Apache-2.0
"""`rnnfast train forecast`: the next steps of a value series, with intervals; judged by rolling origin against naive
forecasts."""

import argparse
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from rnnfast.models import Forecaster
from rnnfast.runs import InputError
from rnnfast.tasks import metrics, plots
from rnnfast.tasks.arguments import number
from rnnfast.tasks.data.series import read_column
from rnnfast.tasks.data.sunspots import SEASON, sunspots
from rnnfast.tasks.settings import Settings, Task, fingerprint, generator, initialiser

VARY = 2.0  # sunspots: the cycles of the last 60 years are larger than those before


class ForecastTask(Task):
    """One series. Its last part is the test: from every origin in it that leaves a whole horizon, one forecast."""

    name = "forecast"
    metric = "MASE"
    higher_is_better = False
    item = "window"
    defaults: ClassVar[Mapping[str, Any]] = {
        "hidden": 32, "layers": 1, "embedding": 0, "dropout": 0.1, "epochs": 400, "batch": 16, "learning_rate": 5e-3,
        "patience": 60, "horizon": 11, "season": None, "test_length": 60, "valid_length": 40, "window": 100,
        "output": "quantiles", "quantiles": [0.1, 0.5, 0.9], "residual": False,
        "vary": None, "column": None,
    }  # fmt: skip

    @staticmethod
    def add_arguments(parser: argparse.ArgumentParser) -> None:
        """The task's own options."""
        parser.add_argument("--data", metavar="FILE", help="CSV with a header line (default: yearly sunspots)")
        parser.add_argument("--column", metavar="NAME", help="of the CSV file")
        parser.add_argument("--horizon", type=int, metavar="N", help="steps ahead (default: 11)")
        parser.add_argument("--season", type=int, metavar="N", help="steps of a season, for the seasonal-naive "
                            "forecast (default: 11 for sunspots, else 1)")  # fmt: skip
        parser.add_argument("--test-length", type=int, metavar="N", help="steps at the end (default: 60)")
        parser.add_argument("--valid-length", type=int, metavar="N", help="steps before those (default: 40)")
        parser.add_argument("--window", type=int, metavar="T", help="steps of a training sequence (default: 100)")
        parser.add_argument("--output", choices=("gaussian", "quantiles"), help="(default: quantiles)")
        parser.add_argument(
            "--vary",
            type=number(1),
            metavar="X",
            help="multiply training windows by random factors from 1/X to X: for "
            "series whose swings differ in size (default: 2 for sunspots, else 1)",
        )
        parser.add_argument("--residual", action="store_const", const=True, help="forecast changes from the last value")

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        o = self.options = settings.options
        if bool(o.get("data")) != bool(o.get("column")):
            raise InputError("--data FILE and --column NAME: expected both, or neither for the sunspots")
        self.values = read_column(Path(o["data"]), o["column"]) if o.get("data") else sunspots()
        self.season = o["season"] or (1 if o.get("data") else SEASON)
        self.horizon = o["horizon"]
        self.vary = o["vary"] or (1.0 if o.get("data") else VARY)
        n, test, valid = len(self.values), o["test_length"], o["valid_length"]
        least = max(2 * self.season, self.horizon + 2)
        if n - test - valid < least or min(test, valid) < self.horizon:
            raise InputError(
                f"series of {n} values: expected at least {least} of training, and validation ({valid}) and test "
                f"({test}) of at least the horizon ({self.horizon}); see --test-length, --valid-length, --horizon"
            )
        if o["window"] < self.horizon + 2:
            raise InputError(f"--window {o['window']}: expected at least {self.horizon + 2}, two more than the horizon")
        self.window = min(o["window"], n - test - valid)
        self.test_begin, self.valid_begin = n - test, n - test - valid
        self.series = torch.tensor(self.values)[:, None, None]  # [T, 1, 1]
        torch.manual_seed(settings.seed)
        self.model = Forecaster(
            self.horizon, hidden=settings.hidden, layers=settings.layers, dropout=settings.dropout, cell=settings.cell,
            backend=settings.backend, output=o["output"], quantiles=tuple(o["quantiles"]), residual=o["residual"],
            init=initialiser(settings.init, settings.cell),
        )  # fmt: skip
        self.model.fit_scale(self.series[: self.valid_begin])
        self.model.extra = {"task": self.name, "column": o["column"] or "sunspots"}

    def plan(self, epoch: int) -> Sequence[list[int]]:
        """Begins of the windows of each batch: as many random windows as would cover the training part four times."""
        last = self.valid_begin - self.window
        count = max(1, 4 * self.valid_begin // self.window // self.settings.batch + 1)
        random = generator(self.settings.seed, epoch)
        begins: list[list[int]] = torch.randint(0, last + 1, (count, self.settings.batch), generator=random).tolist()
        return begins

    def items(self) -> int:
        """Windows of an epoch."""
        return len(self.plan(0)) * self.settings.batch

    def loss(self, batch: list[int]) -> tuple[Tensor, int]:
        """The model's loss over all steps and horizons inside the windows."""
        x = torch.cat([self.series[b : b + self.window] for b in batch], 1)
        if self.vary > 1:  # by a random factor, as likely below 1 as above
            x = x * torch.exp((2 * torch.rand(1, len(batch), 1) - 1) * math.log(self.vary))
        return self.model.loss(x), len(batch)

    def rolling(self, begin: int, end: int) -> tuple[list[int], Tensor, Tensor]:
        """Origins (indices of the first value forecast) whose horizon lies in [begin, end), and the forecasts' medians
        and 80% intervals: [origins, horizon] and [origins, horizon, 2]."""
        origins = list(range(begin, end - self.horizon + 1))
        found = self.model(self.series[: origins[-1]])  # each step forecasts from what it has seen so far
        at = [o - 1 for o in origins]
        low, high = (found.quantile(p)[at, 0, :, 0] for p in (0.1, 0.9))
        return origins, found.median[at, 0, :, 0], torch.stack([low, high], -1)

    def mase(self, origins: Sequence[int], forecasts: Sequence[Sequence[float]], before: int) -> float:
        """Mean absolute error over all origins and steps, in units of the seasonal-naive's within the part before."""
        errors = [
            abs(value - self.values[origin + h])
            for origin, forecast in zip(origins, forecasts, strict=True)
            for h, value in enumerate(forecast)
        ]
        scale = metrics.mase_scale(self.values[:before], self.season)
        if scale == 0:
            raise InputError(
                f"the series repeats itself exactly every {self.season} steps: MASE means nothing; see --season"
            )
        return sum(errors) / len(errors) / scale

    def validate(self) -> float:
        """MASE of rolling origins in the validation part."""
        origins, median, _ = self.rolling(self.valid_begin, self.test_begin)
        return self.mase(origins, median.tolist(), self.valid_begin)

    def test(self, folder: Path) -> dict[str, Any]:
        """MASE of the model, the seasonal-naive and the naive forecast on the same origins; how often the 80% interval
        holds the value."""
        with torch.no_grad():
            origins, median, interval = self.rolling(self.test_begin, len(self.values))
        results: dict[str, Any] = {"origins": len(origins), "horizon": self.horizon, "season": self.season}
        results["metric"] = self.mase(origins, median.tolist(), self.test_begin)
        for name, season in (("seasonal_naive", self.season), ("naive", 1)):
            naive = [metrics.seasonal_naive(self.values[:o], self.horizon, season) for o in origins]
            results[name] = self.mase(origins, naive, self.test_begin)
        actual = torch.tensor([self.values[o : o + self.horizon] for o in origins])
        inside = (actual >= interval[..., 0]) & (actual <= interval[..., 1])
        results["coverage_of_80%"] = inside.double().mean().item()
        shown = [
            {"origin": origins[i], "median": median[i].tolist(), "low": interval[i, :, 0].tolist(),
             "high": interval[i, :, 1].tolist()}
            for i in range(0, len(origins), self.horizon)
        ]  # fmt: skip
        title = f"{self.model.extra['column']}: {self.horizon} steps ahead, MASE {results['metric']:.2f}"
        plots.forecasts(folder / "forecast.png", self.values, shown, title)
        return results

    def data(self) -> dict[str, Any]:
        """Sizes, and numbers that depend on all values."""
        content = fingerprint([torch.tensor(self.values, dtype=torch.float64)])
        sizes = {"values": len(self.values), "test": len(self.values) - self.test_begin}
        return sizes | {"sum": sum(self.values), "content": content}

    def summary(self, results: Mapping[str, Any]) -> list[str]:
        """MASE of all."""
        return [
            f"{results['origins']} origins, {self.horizon} steps ahead, season {self.season}; MASE:",
            f"    naive           {results['naive']:.3f}",
            f"    seasonal naive  {results['seasonal_naive']:.3f}",
            f"    {self.settings.cell:14}  {results['metric']:.3f}   "
            f"(80% interval holds {100 * results['coverage_of_80%']:.0f}%)",
        ]
