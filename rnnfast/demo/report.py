# SPDX-License-Identifier: Apache-2.0
"""What a run leaves in its folder: settings and results as JSON, the loss curve as PNG; and the race with torch.nn."""

import json
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from rnnfast.demo.training import Settings, Trainer
from rnnfast.info import machine_facts
from rnnfast.models import LanguageModel


def quartiles(values: list[float]) -> tuple[float, float, float]:
    """Lower quartile, median, upper quartile."""
    if len(values) < 2:
        return values[0], values[0], values[0]
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, median, high


def race(trainer: Trainer, repeats: int) -> dict[str, Any]:
    """The same training step (forward, loss, backward, clipping) on torch.nn.LSTM, in turns with ours.

    Both models have the same weights and input, and must give the same loss before any clock runs.
    """
    s, symbols = trainer.settings, trainer.corpus.symbols
    x, target = trainer.streams[: s.chunk], trainer.streams[1 : s.chunk + 1]
    x = x[: target.shape[0]]
    models: dict[str, LanguageModel] = {}
    for name, backend in (("rnnfast", "rnnfast"), ("torch.nn", "torch")):
        model = LanguageModel(symbols, s.hidden, s.layers, s.embedding, s.dropout, backend=backend)
        model.load_state_dict(trainer.model.state_dict())
        models[name] = model

    def step(model: LanguageModel) -> float:
        torch.manual_seed(1)  # the same dropout masks
        logits, _ = model(x)
        loss = F.cross_entropy(logits.flatten(0, 1), target.flatten())
        model.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), s.clip)
        return loss.item()

    losses = {name: step(model) for name, model in models.items()}
    difference = abs(losses["rnnfast"] - losses["torch.nn"])
    if difference > 1e-4:
        raise RuntimeError(f"rnnfast and torch.nn.LSTM disagree on the loss: {losses}")
    seconds: dict[str, list[float]] = {name: [] for name in models}
    for i in range(repeats + 2):
        for name, model in models.items():
            started = time.perf_counter()
            step(model)
            if i >= 2:  # the first two rounds warm up
                seconds[name].append(time.perf_counter() - started)
    result: dict[str, Any] = {"repeats": repeats, "loss_difference": difference}
    for name, values in seconds.items():
        low, median, high = quartiles(values)
        result[name] = {"median_ms": 1e3 * median, "quartiles_ms": [1e3 * low, 1e3 * high]}
    result["ratio"] = result["torch.nn"]["median_ms"] / result["rnnfast"]["median_ms"]
    return result


def write_json(path: Path, settings: Settings, results: dict[str, Any]) -> None:
    """Settings, machine and results."""
    document = {"settings": asdict(settings), "machine": machine_facts(), "results": results}
    path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def smooth(values: list[float], window: int = 25) -> list[float]:
    """Running mean over the last `window` values."""
    total, out = 0.0, []
    for i, value in enumerate(values):
        total += value - (values[i - window] if i >= window else 0.0)
        out.append(total / min(i + 1, window))
    return out


def draw(path: Path, trainer: Trainer, references: dict[str, float]) -> None:
    """Loss (training, held out, and what others need) and gradient norm over updates."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    p = trainer.progress
    updates = list(range(1, len(p.loss_bits) + 1))
    figure, (top, bottom) = pyplot.subplots(
        2, 1, figsize=(8, 7), sharex=True, height_ratios=(3, 2), layout="constrained"
    )
    top.plot(updates, p.loss_bits, color="tab:blue", alpha=0.25, linewidth=0.8)
    top.plot(updates, smooth(p.loss_bits), color="tab:blue", label="training (mean of 25 updates)")
    top.plot(*zip(*p.held_out, strict=True), "o-", color="tab:orange", markersize=4, label="held out")
    for (name, bits), style in zip(references.items(), ("--", ":", "-."), strict=False):
        top.axhline(bits, color="grey", linestyle=style, linewidth=1, label=f"{name} {bits:.2f}")
    top.set_ylabel("loss (bits per character)")
    top.set_ylim(bottom=min(1.0, *p.loss_bits), top=max(5.0, *references.values()) + 0.3)
    top.legend(loc="upper right", fontsize=9)
    top.set_title(f"Character language model, LSTM {trainer.settings.layers} x {trainer.settings.hidden}")
    bottom.plot(updates, p.gradient_norm, color="tab:green", alpha=0.3, linewidth=0.8)
    bottom.plot(updates, smooth(p.gradient_norm), color="tab:green", label="gradient norm, before clipping")
    bottom.axhline(trainer.settings.clip, color="tab:red", linewidth=1, linestyle="--", label="clipped above")
    bottom.set_yscale("log")
    bottom.set_ylabel("gradient norm")
    bottom.set_xlabel("update")
    bottom.legend(loc="upper right", fontsize=9)
    for axes in (top, bottom):
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def progress_bar(trainer: Trainer, disable: bool) -> tuple[Callable[[Trainer, float], None], Callable[[], None]]:
    """A bar over characters with loss in bits per character, characters/s and time left; and how to close it."""
    from tqdm import tqdm

    s = trainer.settings
    per_step = s.batch * s.chunk
    bar = tqdm(
        total=s.steps * per_step,
        initial=trainer.progress.step * per_step,
        unit="char",
        unit_scale=True,
        desc="training",
        disable=disable,
        mininterval=0.3,
        smoothing=0.05,
    )

    def update(t: Trainer, bits: float) -> None:
        held_out = f", held out {t.progress.held_out[-1][1]:.3f}" if t.progress.held_out else ""
        bar.set_postfix_str(f"{bits:.3f} bits/char{held_out}", refresh=False)
        bar.update(per_step)

    return update, bar.close
