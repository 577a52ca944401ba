# SPDX-License-Identifier: Apache-2.0
"""The report's plots, as PNG: roofline, ratio bars of each cell, cost against T, B, H and threads."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from . import report, sweeps
from .cases import MEASURED
from .report import NAMES, OURS, THEIRS, shape
from .targets import Row

COLOURS = {
    "rnnfast": "tab:blue", "frozen": "tab:cyan", "stream": "tab:blue", "torch": "tab:orange", "torch_cell": "tab:red",
    "onnxruntime": "tab:green", "openvino": "tab:purple",
}  # fmt: skip
MARKERS = {"lstm": "o", "gru": "s", "rnn_tanh": "^"}


def draw(document: dict[str, Any], out: Path) -> list[Path]:
    """Writes what can be drawn of a report into `out`, and returns the files. Raises ImportError without matplotlib."""
    import matplotlib

    matplotlib.use("Agg")
    rows = [row for row in document["rows"] if row["mode"] not in ("memory", "recomputation")]
    figures: list[tuple[str, Any]] = []
    if any("limit_ms" in row for row in rows):
        figures.append(("roofline.png", _roofline(rows, document["machine"])))
    for mode in ("inference", "training", "streaming"):
        some = [row for row in rows if row["mode"] == mode and "ratio_best" in row]
        if some:
            figures.append((f"ratios-{mode}.png", _ratios(some, mode)))
    for cell in MEASURED:
        curves = list(sweeps.grouped(document.get("sweeps", []), cell))
        if curves:
            figures.append((f"sweeps-{cell}.png", _sweeps(cell, curves)))
    out.mkdir(parents=True, exist_ok=True)
    written = []
    for name, figure in figures:
        figure.savefig(out / name, dpi=110)
        written.append(out / name)
    return written


def _figure(rows: int, columns: int, width: float, height: float) -> tuple[Any, list[Any]]:
    from matplotlib.figure import Figure  # without pyplot: nothing global, nothing to close

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, list(figure.subplots(rows, columns, squeeze=False).flat)


def _roofline(rows: list[Row], machine: dict[str, Any]) -> Any:
    """GF/s of our own calls against flops a byte of weights that the steps must read."""
    figure, (axes,) = _figure(1, 1, 9, 6)
    peak = machine["fma_peak_gflops"]
    ends = (0.1, 3000.0)
    levels = {int(size): speed for size, speed in machine.get("read_bandwidth_gbs", {}).items()}
    for kb in (32, 256, 1024, 4096, 16384):
        if kb * 1024 in levels:
            speed = levels[kb * 1024]
            xs = [ends[0], peak / speed, ends[1]]
            axes.plot(xs, [ends[0] * speed, peak, peak], color="grey", linewidth=0.8)
            text = f" {kb} KB a thread: {speed:.0f} GB/s"
            axes.annotate(text, (ends[0], ends[0] * speed), fontsize=7, rotation=35, rotation_mode="anchor")
    axes.axhline(peak, color="black", linewidth=1)
    axes.annotate(f"FMA peak {peak:.0f} GF/s", (ends[1], peak), ha="right", va="bottom", fontsize=8)
    for row in rows:
        if "limit_ms" in row:
            filled = "tab:blue" if row["mode"] == "inference" else "none"
            colour = {"inference": "tab:blue", "training": "tab:orange", "streaming": "tab:green"}[row["mode"]]
            axes.scatter(
                row["intensity"], row["gflops"], marker=MARKERS[row["cell"]], facecolor=filled, edgecolor=colour, s=30
            )
    for cell, marker in MARKERS.items():
        axes.scatter([], [], marker=marker, color="grey", label=cell)
    for mode, colour in (("inference", "tab:blue"), ("training", "tab:orange"), ("streaming", "tab:green")):
        axes.scatter([], [], marker="o", color=colour, label=mode)
    axes.set(
        xscale="log", yscale="log", xlim=ends, ylim=(0.5, 2 * peak), ylabel="GF/s of rnnfast",
        xlabel="flops for each byte of weights that the sequential steps must read",
        title="Roofline, measured in the same run",
    )  # fmt: skip
    axes.legend(fontsize=8, loc="lower right")
    axes.grid(alpha=0.2, which="both")
    return figure


def _ratios(rows: list[Row], mode: str) -> Any:
    """A panel for each cell; a group of bars for each shape, a bar for each contender, as multiples of ours."""
    cells = [cell for cell in MEASURED if any(row["cell"] == cell for row in rows)]
    figure, panels = _figure(len(cells), 1, 11, 3.2 * len(cells) + 0.5)
    for axes, cell in zip(panels, cells, strict=True):
        some = [row for row in rows if row["cell"] == cell]
        names = [n for n in (*OURS, *THEIRS) if any(f"{n}_ms" in row and n != row["ours"] for row in some)]
        width = 0.8 / max(len(names), 1)
        for number, name in enumerate(names):
            bars = [(i, r[f"{name}_ms"] / r[f"{r['ours']}_ms"]) for i, r in enumerate(some) if f"{name}_ms" in r]
            places = [i + (number - (len(names) - 1) / 2) * width for i, _ in bars]
            heights = [v - 1.0 for _, v in bars]  # from the line at 1, up or down
            drawn = axes.bar(places, heights, width, 1.0, label=NAMES[name], color=COLOURS.get(name))
            axes.bar_label(drawn, [report.significant(v) for _, v in bars], fontsize=6)
        axes.axhline(1.0, color="black", linewidth=1)
        axes.set_yscale("log")
        axes.set_xticks(range(len(some)), [shape(row).replace(" ", "\n") for row in some], fontsize=7)
        axes.set(ylabel=f"time / {NAMES[some[0]['ours']]}'s", title=f"{cell}, {mode}: above 1, rnnfast is faster")
        axes.legend(fontsize=7, ncols=len(names) or 1)
        axes.grid(alpha=0.2, axis="y")
    return figure


def _sweeps(cell: str, curves: Iterable[tuple[str, str, sweeps.Sweep]]) -> Any:
    """A panel for each curve: milliseconds of each contender."""
    curves = list(curves)
    figure, panels = _figure((len(curves) + 1) // 2, 2, 11, 3.4 * ((len(curves) + 1) // 2))
    for axes, (along, same, found) in zip(panels, curves, strict=False):
        for name in dict.fromkeys(name for point in found for name in point["ms"]):
            some = [(p["value"], p["ms"][name]) for p in found if name in p["ms"]]
            axes.plot(*zip(*some, strict=True), "o-", label=NAMES[name], color=COLOURS.get(name), markersize=3)
        axes.set(xscale="log", yscale="log", xlabel=along, ylabel="ms", title=f"{cell} inference, {same}")
        axes.set_xticks([p["value"] for p in found], [str(p["value"]) for p in found])
        axes.minorticks_off()
        axes.legend(fontsize=7)
        axes.grid(alpha=0.3)
    for axes in panels[len(curves) :]:
        axes.remove()
    return figure
