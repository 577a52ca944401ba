# SPDX-License-Identifier: Apache-2.0
"""Pictures of a run: curves, confusion matrix, attention, gradient over time, forecasts."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rnnfast.demo.report import smooth
from rnnfast.tasks.training import Progress

BLUE, ORANGE, GREEN, GREY = "tab:blue", "tab:orange", "tab:green", "0.5"


@contextmanager
def _figure(path: Path, rows: int = 1, columns: int = 1, size: tuple[float, float] = (8, 5)) -> Iterator[Any]:
    """Axes to draw on; the picture is written when they are done."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(rows, columns, figsize=size, layout="constrained")
    try:
        yield axes
        figure.savefig(path, dpi=110)
    finally:
        pyplot.close(figure)


def curves(path: Path, progress: Progress, metric: str, title: str) -> None:
    """Training loss, validation metric and gradient norm over updates."""
    p = progress
    updates = range(1, len(p.loss) + 1)
    with _figure(path, 3, size=(8, 8)) as (top, middle, bottom):
        top.plot(updates, p.loss, color=BLUE, alpha=0.25, linewidth=0.8)
        top.plot(updates, smooth(p.loss), color=BLUE, label="training loss (mean of 25 updates)")
        top.set_title(title)
        middle.plot(*zip(*p.validation, strict=True), "o-", color=ORANGE, markersize=3, label=f"validation: {metric}")
        middle.axvline(p.best_step, color=GREY, linewidth=1, linestyle="--", label="best, kept")
        bottom.plot(updates, p.gradient_norm, color=GREEN, linewidth=0.8, label="gradient norm before clipping")
        if max(p.gradient_norm) > 0:
            bottom.set_yscale("log")
        bottom.set_xlabel("update")
        for axes in (top, middle, bottom):
            axes.grid(alpha=0.3)
            axes.legend(fontsize=9)


def confusion_matrix(path: Path, counts: Sequence[Sequence[int]], labels: Sequence[str], title: str) -> None:
    """Rows: what it is; columns: what the model says; shade: share of the row."""
    shares = [[n / max(1, sum(row)) for n in row] for row in counts]
    side = min(20.0, max(5.0, 0.55 * len(labels) + 2))
    with _figure(path, size=(side, side)) as axes:
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        axes.set_xticks(range(len(labels)), labels, rotation=90)
        axes.set_yticks(range(len(labels)), labels)
        axes.set_xlabel("the model says")
        axes.set_ylabel("it is")
        axes.set_title(title)
        if len(labels) <= 20:
            for i, row in enumerate(counts):
                for j, n in enumerate(row):
                    if n:
                        axes.text(j, i, str(n), ha="center", va="center", fontsize=7,
                                  color="white" if shares[i][j] > 0.5 else "black")  # fmt: skip


def attention_maps(path: Path, examples: Sequence[tuple[Sequence[str], Sequence[str], Any]]) -> None:
    """For each (source, output, weights [outputs, sources]): which part of the source each output looked at."""
    columns = min(3, len(examples))
    rows = -(-len(examples) // columns)
    with _figure(path, rows, columns, size=(4 * columns, 3.6 * rows)) as found:
        grid = [found] if len(examples) == 1 else list(found.flat)
        for axes in grid[len(examples) :]:
            axes.set_visible(False)
        for axes, (source, output, weights) in zip(grid, examples, strict=False):
            axes.imshow(weights, cmap="Greys", vmin=0, vmax=1, aspect="auto")
            axes.set_xticks(range(len(source)), source)
            axes.set_yticks(range(len(output)), output)


def gradient_over_time(path: Path, curves: Mapping[str, Sequence[float]], title: str) -> None:
    """How much of the loss's gradient reaches each step: norms over time, by what the gradient is of."""
    with _figure(path, size=(7, 4)) as axes:
        for name, norms in curves.items():
            axes.plot(range(len(norms)), norms, label=name)
        if any(max(norms, default=0) > 0 for norms in curves.values()):
            axes.set_yscale("log")
        axes.set_xlabel("step t")
        axes.set_ylabel("norm, mean over samples")
        axes.set_title(title)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=9)


def forecasts(path: Path, series: Sequence[float], shown: Sequence[dict[str, Any]], title: str) -> None:
    """The end of a series, and forecasts from some origins with their 80% intervals.

    Each of `shown`: "origin" (index of the first forecast value), "median", "low", "high".
    """
    begin = max(0, min(f["origin"] for f in shown) - 60)
    with _figure(path, size=(10, 4.5)) as axes:
        axes.plot(range(begin, len(series)), series[begin:], color="black", linewidth=1, label="series")
        for i, f in enumerate(shown):
            steps = range(f["origin"], f["origin"] + len(f["median"]))
            colour = (BLUE, ORANGE)[i % 2]
            axes.plot(steps, f["median"], color=colour, label="forecast" if i == 0 else None)
            axes.fill_between(steps, f["low"], f["high"], color=colour, alpha=0.2, label="80%" if i == 0 else None)
        axes.set_title(title)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=9)
