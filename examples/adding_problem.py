# SPDX-License-Identifier: Apache-2.0
"""The adding problem, and one training run on it that can stop at any update and go on later.

S. Hochreiter, J. Schmidhuber, "Long short-term memory", 1997, in the form of Q. Le, N. Jaitly, G. Hinton, "A simple way
to initialize recurrent networks of rectified linear units", 2015: T pairs of a number from U(0, 1) and a mark; two are
marked, and at the end the sum of their numbers is to be given. Always answering 1 has a mean squared error of 2/12 =
0.167.
"""

import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import rnnfast
from rnnfast.info import machine_facts

BASELINE = 2 / 12
TARGET = 0.01  # a mean squared error below this counts as solved
PEAK = 2.0  # a gradient norm this many times that of the last peak, or of the first update, is a peak
CLIPS = ("none", "norm", "bptt")


@dataclass(frozen=True)
class Recipe:
    """How a cell is trained at every length (docs/training.md tells how the numbers were found)."""

    build: Callable[..., nn.Module]
    init: Callable[[int], Any]  # of T
    learning_rate: float  # Adam's
    clip_norm: float  # --clip norm: the gradient of all weights has at most this norm
    clip_bptt: float  # --clip bptt: the error signal of one sample's loss has at most this norm at any step


def _irnn(*args: int, **options: Any) -> nn.Module:
    return rnnfast.RNN(*args, nonlinearity="relu", **options)


RECIPES: dict[str, Recipe] = {
    "tanh": Recipe(rnnfast.RNN, lambda length: None, 5e-4, 1.0, 1.0),
    "irnn": Recipe(_irnn, lambda length: "irnn", 5e-4, 1.0, 1.0),
    "gru": Recipe(rnnfast.GRU, lambda length: ("chrono", length), 1e-2, 1.0, 1.0),
    "lstm": Recipe(rnnfast.LSTM, lambda length: ("chrono", length), 1e-2, 1.0, 1.0),
}


@dataclass(frozen=True)
class Settings:
    """All that decides a run's numbers."""

    cell: str
    length: int  # T
    clip: str = "none"
    seed: int = 0
    hidden: int = 100
    batch: int = 16
    updates: int = 30000  # at most; a run ends once the error is below `enough`
    enough: float = 0.005
    evaluate_every: int = 200
    test_samples: int = 1000
    learning_rate: float = 0.0  # 0: the recipe's

    @property
    def name(self) -> str:
        """Of the run's files."""
        return f"T{self.length}-{self.cell}-{self.clip}{self._variant}"

    @property
    def group(self) -> str:
        """Of the picture of all runs that differ in cell and clipping alone."""
        return f"T{self.length}{self._variant}"

    @property
    def _variant(self) -> str:
        rate = f"-rate{self.learning_rate:g}" if self.learning_rate else ""
        return f"{rate}-seed{self.seed}"

    @property
    def rate(self) -> float:
        """The learning rate."""
        return self.learning_rate or RECIPES[self.cell].learning_rate

    @property
    def recipe(self) -> dict[str, Any]:
        """The recipe's share of the settings, as JSON has it."""
        recipe = RECIPES[self.cell]
        init = recipe.init(self.length)
        return {
            "init": list(init) if isinstance(init, tuple) else init,
            "learning_rate": self.rate,
            "clip_norm": recipe.clip_norm if self.clip == "norm" else None,
            "clip_bptt": recipe.clip_bptt if self.clip == "bptt" else None,
        }


@dataclass
class Progress:
    """How far a run is, and its record."""

    update: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0  # of all threads: on a busy machine less than seconds
    loss: list[float] = field(default_factory=list)  # of each update's batch
    gradient_norm: list[float] = field(default_factory=list)  # before clip_grad_norm_, after clipping inside BPTT
    test: list[tuple[int, float]] = field(default_factory=list)  # (update, mean squared error)
    diverged: bool = False  # the loss or the gradient was not finite
    flow: dict[str, dict[str, Any]] = field(default_factory=dict)  # at "start", "peak" and "end": see record_flow


def adding_batch(length: int, batch: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """x [T, B, 2]: numbers and marks, two different steps of each sample marked; and the sums [B]."""
    numbers = torch.rand(length, batch, generator=generator)
    # The two largest of T random numbers stand at two different steps, each pair as likely as any other.
    marked = torch.rand(length, batch, generator=generator).topk(2, dim=0).indices
    marks = torch.zeros(length, batch).scatter_(0, marked, 1.0)
    return torch.stack((numbers, marks), dim=-1), (numbers * marks).sum(0)


class AddingModel(nn.Module):
    """A recurrent layer, and a linear reading of its last output."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        recipe = RECIPES[settings.cell]
        options: dict[str, Any] = {"init": recipe.init(settings.length)}
        if settings.clip == "bptt":  # the loss is a mean over the batch: so is a sample's share of the error signal
            options["bptt_clip"] = ("norm", recipe.clip_bptt / settings.batch)
        self.rnn = recipe.build(2, settings.hidden, **options)
        self.output = nn.Linear(settings.hidden, 1)

    def forward(self, x: Tensor) -> Tensor:
        """The answers [B] to x [T, B, 2]."""
        y, _ = self.rnn(x)
        return self.output(y[-1]).squeeze(-1)


class Run:
    """One training run. `advance` makes one update; a loaded run goes on with the numbers of one that never stopped."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.progress = Progress()
        torch.manual_seed(settings.seed)
        self.model = AddingModel(settings)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=settings.rate)
        self.generator = torch.Generator().manual_seed(1000 + settings.seed)
        held_out = torch.Generator().manual_seed(2000 + settings.seed)
        self.test = adding_batch(settings.length, settings.test_samples, held_out)

    @property
    def finished(self) -> bool:
        """Whether there is nothing left to do."""
        p, s = self.progress, self.settings
        return p.diverged or p.update >= s.updates or bool(p.test and p.test[-1][1] < s.enough)

    def loss(self, x: Tensor, target: Tensor) -> Tensor:
        """The mean squared error."""
        return torch.mean((self.model(x) - target) ** 2)

    def advance(self, peak: Path | None = None) -> None:
        """One update, and its place in the record; evaluates where it is time.

        peak: where to draw the gradient flow of an update whose gradient is a peak (PEAK); its time does not count.
        """
        started, cpu_started = time.perf_counter(), time.process_time()
        s, p = self.settings, self.progress
        batch = adding_batch(s.length, s.batch, self.generator)
        loss = self.loss(*batch)
        self.optimizer.zero_grad()
        loss.backward()
        if s.clip == "norm":
            norm = nn.utils.clip_grad_norm_(self.model.parameters(), RECIPES[s.cell].clip_norm)
        else:
            norm = nn.utils.get_total_norm([w.grad for w in self.model.parameters() if w.grad is not None])
        if peak is not None and self._is_peak(norm.item()):
            paused, cpu_paused = time.perf_counter(), time.process_time()
            self.record_flow(peak, "peak", batch)
            started += time.perf_counter() - paused
            cpu_started += time.process_time() - cpu_paused
        p.loss.append(loss.item())
        p.gradient_norm.append(norm.item())
        p.update += 1
        p.diverged = not (math.isfinite(p.loss[-1]) and math.isfinite(p.gradient_norm[-1]))
        if not p.diverged:
            self.optimizer.step()
        if p.update % s.evaluate_every == 0 or p.update == s.updates or p.diverged:
            p.test.append((p.update, self.evaluate()))
        p.seconds += time.perf_counter() - started
        p.cpu_seconds += time.process_time() - cpu_started

    @torch.no_grad()
    def evaluate(self) -> float:
        """The mean squared error on held-out samples."""
        return self.loss(*self.test).item()

    def solved_at(self) -> int | None:
        """The first update after which the error on held-out samples was below TARGET."""
        return next((update for update, error in self.progress.test if error < TARGET), None)

    def best(self) -> float:
        """The lowest error on held-out samples, infinite before the first."""
        return min((error for _, error in self.progress.test if math.isfinite(error)), default=math.inf)

    def save(self, path: Path) -> None:
        """Writes all that a resumed run needs; whole or not at all."""
        data = {
            "settings": asdict(self.settings),
            "recipe": self.settings.recipe,
            "progress": asdict(self.progress),
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "random": self.generator.get_state(),
        }
        partial = path.with_suffix(".partial")
        torch.save(data, partial)
        os.replace(partial, path)

    @classmethod
    def load(cls, path: Path) -> "Run":
        """Goes on from :meth:`save`'s file."""
        data = torch.load(path, weights_only=True)
        run = cls(Settings(**data["settings"]))
        if data["recipe"] != run.settings.recipe:
            raise ValueError(f"it was made with another recipe: {data['recipe']}, not {run.settings.recipe}")
        run.progress = Progress(**data["progress"])
        run.model.load_state_dict(data["model"])
        run.optimizer.load_state_dict(data["optimizer"])
        run.generator.set_state(data["random"])
        return run

    def _is_peak(self, norm: float) -> bool:
        """Whether a gradient of this norm is far larger than all before it. Of one that is not finite no picture."""
        p = self.progress
        last = float(p.flow["peak"]["gradient_norm"]) if "peak" in p.flow else p.gradient_norm[0] if p.update else norm
        return math.isfinite(norm) and norm > PEAK * last

    def record_flow(self, path: Path, when: str, batch: tuple[Tensor, Tensor] | None = None) -> None:
        """The error signal of one batch on its way back: drawn to path; into the record in words and in numbers.

        `progress.flow[when]`: "update", how many had been made; "words"; "gradient_norm", of all weights; "signal" and
        "signal_c", the mean norm of dL/dh_t and dL/dc_t over the batch for each step t ("signal_c": of LSTM alone).

        batch: x [T, B, 2] and sums [B]; None: the first of the held-out samples.
        """
        size = self.settings.batch
        x, target = (self.test[0][:, :size], self.test[1][:size]) if batch is None else batch
        with rnnfast.diagnostics.gradient_flow(self.model.rnn) as flow:
            gradients = torch.autograd.grad(self.loss(x, target), list(self.model.parameters()))
        flow.plot(path)
        record = {
            "update": self.progress.update,
            "words": flow.summary(),
            "gradient_norm": _short(nn.utils.get_total_norm(gradients).item()),
            "signal": [_short(float(norm)) for norm in flow.dh[0, 0]],  # one layer, one direction
        }
        if isinstance(self.model.rnn, rnnfast.LSTM):
            record["signal_c"] = [_short(float(norm)) for norm in flow.dc[0, 0]]
        self.progress.flow[when] = record

    def result(self) -> dict[str, Any]:
        """What the run's JSON says."""
        p = self.progress
        return {
            "settings": asdict(self.settings),
            "recipe": self.settings.recipe,
            "machine": machine_facts(),
            "updates": p.update,
            "seconds": round(p.seconds, 1),
            "cpu_seconds": round(p.cpu_seconds, 1),
            "best_test_error": _short(self.best()),
            "last_test_error": _short(p.test[-1][1]) if p.test else None,
            "solved_at": self.solved_at(),
            "diverged": p.diverged,
            "gradient_flow": p.flow,
            "test": [[update, _short(error)] for update, error in p.test],
            "loss": [_short(value) for value in p.loss],
            "gradient_norm": [_short(value) for value in p.gradient_norm],
        }


def _short(value: float) -> float | str:
    """Four digits are enough for a curve; JSON has no infinity and no NaN."""
    return float(f"{value:.4g}") if math.isfinite(value) else str(value)


def write_json(path: Path, document: dict[str, Any]) -> None:
    """Whole or not at all; the long lists on one line each."""
    body = ",\n".join(f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in document.items())
    partial = path.with_suffix(".partial")
    partial.write_text("{\n" + body + "\n}\n", encoding="utf-8")
    os.replace(partial, path)
