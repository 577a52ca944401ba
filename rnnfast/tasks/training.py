# SPDX-License-Identifier: Apache-2.0
"""The training loop of all tasks: batches, clipping, schedule, early stopping, checkpoints."""

import math
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from rnnfast.models.base import load
from rnnfast.runs import CHECKPOINT, InputError
from rnnfast.tasks.settings import Settings, Task

MODEL = "model.pt"
VERSION = 1
WARM_UP = 50  # updates, at most a twentieth of all


@dataclass
class Progress:
    """How far a run is, and its record."""

    epoch: int = 0
    batch: int = 0  # done of this epoch
    step: int = 0
    seconds: float = 0.0  # of updates, evaluation not counted
    best: float | None = None
    best_step: int = 0
    without_better: int = 0  # evaluations since
    finished: bool = False
    loss: list[float] = field(default_factory=list)  # each update
    gradient_norm: list[float] = field(default_factory=list)
    validation: list[list[float]] = field(default_factory=list)  # [step, metric]


class Trainer:
    """One run. `folder` receives the checkpoint and, at each best evaluation, the model."""

    def __init__(self, task: Task, folder: Path) -> None:
        self.task, self.folder, self.settings = task, folder, task.settings
        self.progress = Progress()
        self.data = task.data()
        s = self.settings
        self.optimizer = torch.optim.AdamW(task.model.parameters(), lr=s.learning_rate, weight_decay=s.weight_decay)
        self.total = max(1, s.epochs * len(task.plan(0)))

    def rate(self) -> float:
        """The learning rate of the next update: a short warm-up, then half a cosine down to a fiftieth."""
        step, warm_up = self.progress.step, min(WARM_UP, max(1, self.total // 20))
        if step < warm_up:
            return self.settings.learning_rate * (step + 1) / warm_up
        done = min(1.0, (step - warm_up) / max(1, self.total - warm_up))
        return self.settings.learning_rate * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * done)))

    def update(self, batch: Any) -> tuple[float, int]:
        """One update; its loss, and the items it saw.

        Raises:
            InputError: the loss is not finite.
        """
        started = time.perf_counter()
        task, p = self.task, self.progress
        task.model.train()
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate()
        loss, items = task.loss(batch)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(task.model.parameters(), self.settings.clip)
        value = loss.item()
        if not math.isfinite(value) or not math.isfinite(norm.item()):
            raise InputError(f"training diverged at update {p.step + 1} (loss {value:g}): try a lower --learning-rate")
        self.optimizer.step()
        p.loss.append(value)
        p.gradient_norm.append(norm.item())
        p.step += 1
        p.batch += 1
        p.seconds += time.perf_counter() - started
        return value, items

    def evaluate(self) -> float:
        """The validation metric; the best model so far is written to the folder."""
        self.task.model.eval()
        with torch.no_grad():
            value = self.task.validate()
        p = self.progress
        p.validation.append([p.step, value])
        if self._is_better(value):
            p.best, p.best_step, p.without_better = value, p.step, 0
            self.task.model.save(self.folder / MODEL)
        else:
            p.without_better += 1
        return value

    def _is_better(self, value: float) -> bool:
        """Than the best so far. A first metric that is not a number does not stay the best."""
        best = self.progress.best
        if best is None or not math.isfinite(best):
            return best is None or math.isfinite(value)
        return value > best if self.task.higher_is_better else value < best

    def run(self, after_update: Callable[[float, int], None], deadline: float = math.inf) -> str:
        """Trains to the last epoch, until nothing gets better, or until the deadline (of `time.monotonic()`).

        `after_update(loss, items)` may raise to stop; what was done so far is in `progress`. Returns what ended it.

        A deadline within an epoch adds an evaluation to this run's report, for a model that may be the best. The
        checkpoint is written before it: a resumed run evaluates, and stops, where an uninterrupted one does.
        """
        p, s = self.progress, self.settings
        while self._goes_on():
            plan = self.task.plan(p.epoch)
            for batch in plan[p.batch :]:
                loss, items = self.update(batch)
                after_update(loss, items)
                if time.monotonic() >= deadline and p.batch < len(plan):
                    self.save()
                    self.evaluate()
                    return "time limit"
            p.epoch, p.batch = p.epoch + 1, 0
            self.evaluate()
            self.save()
            if time.monotonic() >= deadline and self._goes_on():
                return "time limit"
        p.finished = True
        self.save()
        return "no better for a while" if p.epoch < s.epochs else "last epoch"

    def _goes_on(self) -> bool:
        """Whether there are epochs left, and reason for them."""
        return self.progress.epoch < self.settings.epochs and self.progress.without_better < self.settings.patience

    def save(self) -> None:
        """Writes all that a resumed run needs to give the same numbers; whole or not at all."""
        data = {
            "version": VERSION,
            "task": self.task.name,
            "settings": asdict(self.settings),
            "data": self.data,
            "progress": asdict(self.progress),
            "model": self.task.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "carry": self.task.carry(),
            "random": torch.get_rng_state(),
            "best": None if self.progress.best is None else _bytes(self.folder / MODEL),
        }
        _write_whole(self.folder / CHECKPOINT, lambda file: torch.save(data, file))

    def restore(self, checkpoint: dict[str, Any]) -> None:
        """Goes on from a checkpoint.

        Raises:
            InputError: it was made with other data.
        """
        # What an older version did not write down cannot differ.
        if any(self.data.get(key) != value for key, value in checkpoint["data"].items()):
            raise InputError(f"--resume {self.folder}: the data is not what this run was trained on")
        self.progress = Progress(**checkpoint["progress"])
        self.task.model.load_state_dict(checkpoint["model"])
        self.optimizer.load_state_dict(checkpoint["optimizer"])
        self.task.set_carry(checkpoint["carry"])
        torch.set_rng_state(checkpoint["random"])
        best = checkpoint.get("best")  # None before the first evaluation; older checkpoints have none
        if best is not None:
            # The file in the folder may be of a later evaluation, made when the time was up.
            _write_whole(self.folder / MODEL, lambda file: file.write_bytes(best.numpy().tobytes()))

    def take_best(self) -> None:
        """Puts the best model in the task's place."""
        self.task.model = load(self.folder / MODEL)


def _bytes(path: Path) -> torch.Tensor:
    """A file's content as uint8, which a checkpoint can hold."""
    return torch.frombuffer(bytearray(path.read_bytes()), dtype=torch.uint8)


def _write_whole(path: Path, write: Callable[[Path], Any]) -> None:
    """The file as `write` makes it, or the one before."""
    partial = path.with_name(path.name + ".partial")
    write(partial)
    os.replace(partial, path)


def read_checkpoint(folder: Path, task: str) -> dict[str, Any]:
    """A checkpoint's content; executes nothing of it (weights_only).

    Raises:
        InputError: there is none, it is damaged, of another version or another task.
    """
    try:
        data = dict(torch.load(folder / CHECKPOINT, weights_only=True))
        if data["version"] != VERSION:
            raise KeyError(f"version {data['version']}")
        data["settings"] = Settings(**data["settings"])
        found = str(data["task"])
    except FileNotFoundError:
        raise InputError(f"--resume {folder}: there is no checkpoint in this folder") from None
    except Exception as error:
        # Whatever a damaged file makes the reader raise, the user can do one thing about it.
        reason = str(error).splitlines()[0][:100] if str(error) else type(error).__name__
        raise InputError(f"--resume {folder}: the checkpoint cannot be read ({reason})") from None
    if found != task:
        raise InputError(f"--resume {folder}: expected a run of {task}, got one of {found}")
    return data
