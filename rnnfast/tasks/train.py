# SPDX-License-Identifier: Apache-2.0
"""`rnnfast train TASK`: read the data, train, judge on the test part, write the report."""

import argparse
import itertools
import json
import math
import re
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import torch

from rnnfast.info import machine_facts
from rnnfast.runs import InputError, Interrupt, Stopped, check_same, new_folder, resumed_folder
from rnnfast.tasks import plots
from rnnfast.tasks.arguments import task_class
from rnnfast.tasks.settings import Settings, Task
from rnnfast.tasks.training import Trainer, read_checkpoint

RESULTS = "results.json"
# What may change when a run goes on: how long it trains, and where the files that it was given lie now (what they hold
# is compared with what it was trained on).
LATER = ("epochs", "patience")
FILES = ("data", "train", "valid", "test", "text")
MAY_CHANGE = "--epochs, --patience, --minutes, --threads and where its files lie"


def settings_of(args: argparse.Namespace, task: Any) -> Settings:
    """The task's defaults, changed by what the command line says."""
    given = {k: v for k, v in vars(args).items() if v is not None}
    common = {f.name for f in fields(Settings)} - {"options"}
    values = {k: v for k, v in task.defaults.items() if k in common} | {k: v for k, v in given.items() if k in common}
    own = {k: v for k, v in task.defaults.items() if k not in common}
    own |= {k: given[k] for k in (*FILES, *own) if k in given}
    if values.get("learning_rate") is None:
        rates = sys.modules[task.__module__].RATES
        values["learning_rate"] = rates[values.get("cell", Settings.cell)]
    return Settings(**values, options=own)


def resumed_settings(args: argparse.Namespace, folder: Path, checkpoint: dict[str, Any]) -> Settings:
    """The settings of a run that goes on: its own, with what the command line may change.

    Raises:
        InputError: an option that contradicts the run's; fewer epochs than it has begun.
    """
    saved: Settings = checkpoint["settings"]
    given = {k: v for k, v in vars(args).items() if v is not None}
    own = asdict(saved) | saved.options
    moved = {k: given[k] for k in FILES if k in given and own.get(k) is not None}
    fixed = {k: v for k, v in given.items() if (k in own or k in FILES) and k not in LATER and k not in moved}
    check_same(folder, fixed, own, MAY_CHANGE)
    later = {k: given[k] for k in LATER if k in given}
    begun = checkpoint["progress"]["epoch"] + (checkpoint["progress"]["batch"] > 0)
    if later.get("epochs", begun) < begun:
        raise InputError(
            f"--resume {folder}: --epochs {later['epochs']}: expected at least the {begun} that it has begun"
        )
    return replace(saved, **later, options=saved.options | moved)


def unnamed(task: str) -> Iterator[str]:
    """Names for a run without one: <task>-<time>."""
    now = f"{task}-{time.strftime('%Y%m%d-%H%M%S')}"
    yield now
    yield from (f"{now}-{number}" for number in itertools.count(2))


def train(args: argparse.Namespace) -> int:
    """The command; returns its exit code. Raises InputError for what the user can mend."""
    if args.threads:
        torch.set_num_threads(args.threads)
    chosen, out = task_class(args.task), Path(args.out)
    checkpoint = None
    if args.resume:
        folder = resumed_folder(out, args.name, args.task)
        checkpoint = read_checkpoint(folder, args.task)
        settings = resumed_settings(args, folder, checkpoint)
    else:
        settings = settings_of(args, chosen)
    try:
        task: Task = chosen(settings)
    except ValueError as error:  # what the model refuses: a cell or size that it does not have
        raise InputError(str(error)) from None
    if checkpoint is None:
        folder = new_folder(out, args.name, unnamed(args.task))
    trainer = Trainer(task, folder)
    if checkpoint is not None:
        trainer.restore(checkpoint)
        print(f"resuming {folder} at update {trainer.progress.step} of at most {trainer.total}")
    named = (
        f"{k} {v}" for k, v in trainer.data.items() if isinstance(v, int | str) and k not in ("checksum", "content")
    )
    sizes = ", ".join(named)
    parameters = sum(p.numel() for p in task.model.parameters())
    print(f"{args.task}: {sizes}; {settings.cell} on {settings.backend}, {parameters} parameters; report in {folder}/")
    try:
        reason = _loop(trainer, args.minutes)
    except Stopped:
        again = f"rnnfast train {args.task} --resume --name {folder.name} --out {out}"
        print(f"interrupted at update {trainer.progress.step}; saved. Go on with: {again}", file=sys.stderr)
        return 130
    report(trainer, reason)
    return 0


def _loop(trainer: Trainer, minutes: float | None) -> str:
    """Training behind a progress bar; Ctrl-C saves between two updates and raises Stopped."""
    update, close = progress_bar(trainer)
    deadline = time.monotonic() + 60 * minutes if minutes else math.inf
    with Interrupt() as interrupt:

        def after(loss: float, items: int) -> None:
            update(loss, items)
            if interrupt.asked:
                trainer.save()
                raise Stopped

        try:
            return trainer.run(after, deadline)
        finally:
            close()


def progress_bar(trainer: Trainer) -> tuple[Callable[[float, int], None], Callable[[], None]]:
    """A bar over items with loss, validation metric, items/s and time left; and how to close it."""
    from tqdm import tqdm

    task, p, s = trainer.task, trainer.progress, trainer.settings
    per_epoch = task.items()
    per_update = per_epoch / max(1, len(task.plan(0)))
    bar = tqdm(
        total=s.epochs * per_epoch, initial=min(s.epochs * per_epoch, round(p.step * per_update)), unit=task.item,
        unit_scale=True, desc=task.name, mininterval=0.3, smoothing=0.05,
        disable=None if trainer.total < 200 else False,
    )  # fmt: skip

    def update(loss: float, items: int) -> None:
        validation = f", {task.metric} {p.validation[-1][1]:.4f}" if p.validation else ""
        bar.set_postfix_str(f"loss {loss:.3f}{validation}", refresh=False)
        bar.update(items)

    return update, bar.close


def report(trainer: Trainer, reason: str) -> None:
    """Judges the best model on the test part; writes results.json and the pictures, prints the summary."""
    trainer.take_best()
    task, p, folder = trainer.task, trainer.progress, trainer.folder
    with torch.no_grad():
        results = task.test(folder)
    items = len(p.loss) * task.items() / max(1, len(task.plan(0)))
    results |= {
        "metric_name": task.metric,
        "validation": p.best,
        "updates": p.step,
        "epochs": p.epoch,
        "best_update": p.best_step,
        "stopped_by": reason,
        "training_seconds": p.seconds,
        "items_per_second": items / max(p.seconds, 1e-9),
        "parameters": sum(q.numel() for q in task.model.parameters()),
    }
    document = {
        "task": task.name,
        "settings": asdict(task.settings),
        "machine": machine_facts(),
        "data": trainer.data,
        "results": results,
        "history": {"loss": thinned(p.loss), "validation": p.validation},
    }
    text = json.dumps(rounded(document), indent=1, ensure_ascii=False, allow_nan=False)
    # Lists of numbers on one line: a page that can be read.
    text = re.sub(r"\[[-+.\deE,\s]+\]", lambda found: " ".join(found[0].split()), text)
    (folder / RESULTS).write_text(text + "\n", encoding="utf-8")
    title = (
        f"{task.name}: {task.settings.cell}, {task.settings.layers} x {task.settings.hidden}, {task.settings.backend}"
    )
    plots.curves(folder / "curves.png", p, task.metric, title)
    print(f"\ntrained {p.step} updates in {p.seconds:.1f} s ({reason}; best at {p.best_step}); report in {folder}/")
    print("\n".join(task.summary(results)), flush=True)


def rounded(value: Any) -> Any:
    """The same with numbers of seven digits; None for what JSON has no number for: infinities, NaN."""
    if isinstance(value, float):
        return float(f"{value:.7g}") if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: rounded(v) for key, v in value.items()}
    return [rounded(v) for v in value] if isinstance(value, list | tuple) else value


def thinned(values: list[float], most: int = 100) -> list[float]:
    """Means of neighbours, at most `most` of them."""
    width = -(-len(values) // most) if values else 1
    return [sum(v) / len(v) for i in range(0, len(values), width) if (v := values[i : i + width])]
