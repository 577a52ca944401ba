# SPDX-License-Identifier: Apache-2.0
"""Measurements to rows, tables on screen, CSV and JSON."""

import csv
import json
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import targets
from .cases import MODES, Case
from .limits import Limits
from .targets import Row
from .timing import Timing

FORMAT = 2  # of results.json: 1 had torch.nn as the only rival, and no limits but the FMA peak
NAMES = {
    "rnnfast": "rnnfast", "frozen": "frozen", "stream": "Stream", "rnnfast_cell": "cell", "torch": "torch",
    "torch_cell": "torch cell", "onnxruntime": "ORT", "openvino": "OpenVINO", "recomputation": "recomputed",
}  # fmt: skip
OURS = ("rnnfast", "frozen", "stream", "rnnfast_cell")
THEIRS = ("torch", "torch_cell", "onnxruntime", "openvino")
_CASE = ("cell", "mode", "layers", "directions", "T", "B", "I", "H")
COLUMNS = (
    *_CASE, "ours", *(f"{name}_{what}" for name in NAMES for what in ("ms", "low", "high")),
    "ratio", "ratio_torch_cell", "ratio_onnxruntime", "ratio_openvino", "ratio_best", "best",
    "gflops", "of_peak", "limit_ms", "limit_by", "of_limit", "intensity",
    "recurrence_us", "recurrence_gbs", "of_bandwidth", "budget_ms", "of_budget",
    "overhead_rnnfast", "overhead_rnnfast_cell", "overhead_stream",
    "rnnfast_bytes", "torch_bytes", "recomputation_bytes", "bytes_ratio", "bytes_spread", "time_ratio",
    "missed", "repeats", "left_out",
)  # fmt: skip


@dataclass(frozen=True)
class Measured:
    """What was measured of one case; rows are made of it when the limits are known, after the last case."""

    case: Case
    ours: str
    timings: Mapping[str, Timing] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)
    recurrence: float | None = None  # seconds a step
    memory: Mapping[str, list[int]] | None = None


def rows_of(measured: list[Measured], limits: Limits, isa: str) -> list[Row]:
    """A row for each case."""
    rows = [_row(m, limits) for m in measured]
    cells = [
        r["torch_cell_ms"] for r in rows if r["mode"] == "overhead" and r["cell"] == "lstm" and "torch_cell_ms" in r
    ]
    for m, row in zip(measured, rows, strict=True):
        step = limits.step_seconds(m.case)
        if row["mode"] == "streaming" and cells and step is not None:
            row["budget_ms"] = 2e3 * step + 0.15 * cells[0]
            row["of_budget"] = row[f"{row['ours']}_ms"] / row["budget_ms"]
        row["missed"] = targets.missed(row, isa)
    return rows


def _row(m: Measured, limits: Limits) -> Row:
    if m.memory is None:
        return _time_row(m, limits)
    return _memory_row(m) | (_recomputation_times(m) if m.timings else {})


def _medians(m: Measured) -> Row:
    row: Row = {"ours": m.ours}
    for name, timing in m.timings.items():
        row |= {f"{name}_ms": timing.median, f"{name}_low": timing.low, f"{name}_high": timing.high}
    return row


def _recomputation_times(m: Measured) -> Row:
    """time_ratio: a training step with recomputation over one without."""
    ratio = m.timings["recomputation"].median / m.timings["rnnfast"].median
    return _medians(m) | {"time_ratio": ratio, "repeats": m.timings["recomputation"].repeats}


def _time_row(m: Measured, limits: Limits) -> Row:
    row: Row = {name: getattr(m.case, name) for name in _CASE} | _medians(m)
    ours = m.timings[m.ours].median
    ratios = {name: m.timings[name].median / ours for name in THEIRS if name in m.timings}
    row |= {"ratio" if name == "torch" else f"ratio_{name}": ratio for name, ratio in ratios.items()}
    if ratios:
        row["best"] = min(ratios, key=ratios.__getitem__)
        row["ratio_best"] = ratios[row["best"]]
    row["gflops"] = m.case.flops / ours * 1e-6
    row["of_peak"] = row["gflops"] / limits.peak
    if m.case.mode == "overhead":
        if "torch_cell" in m.timings:
            cell = m.timings["torch_cell"].median
            names = {"rnnfast": "rnnfast", "rnnfast_cell": "rnnfast_cell", "stream": "stream", "frozen": "stream"}
            row |= {f"overhead_{names[n]}": t.median / cell for n, t in m.timings.items() if n in names}
    else:
        row["limit_ms"], row["limit_by"] = limits.of(m.case)
        row["of_limit"] = row["limit_ms"] / ours
        row["intensity"] = m.case.flops / (m.case.passes * m.case.step_bytes)
    if m.recurrence is not None:
        row["recurrence_us"] = 1e6 * m.recurrence
        row["recurrence_gbs"] = m.case.step_bytes / m.recurrence * 1e-9
        bandwidth = limits.bandwidth_at(m.case.step_bytes / limits.threads)
        if bandwidth is not None:
            row["of_bandwidth"] = row["recurrence_gbs"] / bandwidth
    return row | {"repeats": m.timings[m.ours].repeats, "left_out": dict(m.left_out)}


def _memory_row(m: Measured) -> Row:
    """Medians. bytes_ratio: ours (m.ours) over torch's; bytes_spread: the largest range of anyone's repeats."""
    assert m.memory is not None
    row: Row = {name: getattr(m.case, name) for name in _CASE}
    row |= {f"{name}_bytes": int(statistics.median(values)) for name, values in m.memory.items()}
    row["bytes_ratio"] = row[f"{m.ours}_bytes"] / max(row["torch_bytes"], 1)
    row["bytes_spread"] = max(max(values) - min(values) for values in m.memory.values())
    return row | {"repeats": len(m.memory["rnnfast"])}


def label(row: Row) -> str:
    """lstm 100,1,128,128; with 2x2 after it: 2 layers in 2 directions."""
    return f"{row['cell']} {shape(row)}"


def shape(row: Row) -> str:
    """T,B,I,H, and what distinguishes it from one layer in one direction."""
    layers, directions = row.get("layers", 1), row.get("directions", 1)
    stack = "" if layers == directions == 1 else f" {layers}x{directions}"
    return ",".join(str(row[k]) for k in "TBIH") + stack


# On screen ------------------------------------------------------------------------------------------------------------

TITLES = {
    "inference": "inference: ms of one call; the others as multiples of it",
    "training": "training step: ms of forward and backward; torch as a multiple of it",
    "streaming": "one step with its state: ms; the others as multiples of it",
    "overhead": "call overhead, H=16: ms; the others as multiples of it",
    "memory": "peak memory of a training step beyond inputs, outputs and gradients",
    "recomputation": "training step with checkpoint_every='auto' and without: ms, and peak memory as above",
}
Column = tuple[str, int, Callable[[Row], str]]  # heading, width, what stands in a row


def tables(rows: list[Row]) -> str:
    """For people: a table for each mode."""
    blocks = []
    for mode in MODES:
        some = [row for row in rows if row["mode"] == mode]
        if some:
            columns = columns_of(mode, some)
            head = " ".join(f"{heading:>{width}}" for heading, width, _ in columns)
            lines = [" ".join(f"{text(row):>{width}}" for _, width, text in columns) for row in some]
            blocks.append("\n".join([TITLES[mode], head, "-" * len(head), *lines]))
    return "\n\n".join(blocks)


def columns_of(mode: str, rows: list[Row]) -> list[Column]:
    """What a table of this mode shows of these rows; also of the page (page.py)."""
    columns: list[Column] = [("cell", 8, lambda r: r["cell"]), ("T,B,I,H", 17, shape)]
    if mode == "memory":
        megabytes = (("rnnfast MB", "rnnfast_bytes"), ("torch MB", "torch_bytes"), ("spread MB", "bytes_spread"))
        columns += [(heading, 10, _number(key, 2, 2**-20)) for heading, key in megabytes]
        columns.append(("rnnfast/torch", 13, _number("bytes_ratio", 2)))
    elif mode == "recomputation":
        columns += [("with ms", 10, _number("recomputation_ms")), ("quartiles", 15, _quartiles)]
        columns += [("without ms", 10, _number("rnnfast_ms")), ("with/without", 12, _number("time_ratio", 2))]
        megabytes = (("with MB", "recomputation_bytes"), ("without", "rnnfast_bytes"), ("torch", "torch_bytes"))
        columns += [(heading, 7, _number(key, 1, 2**-20)) for heading, key in megabytes]
        columns.append(("with/torch", 10, _number("bytes_ratio", 3)))
    else:
        ours = rows[0]["ours"]
        columns += [(f"{NAMES[ours]} ms", 10, _number(f"{ours}_ms")), ("quartiles", 15, _quartiles)]
        for name in (*OURS, *THEIRS):
            if name != ours and any(f"{name}_ms" in row for row in rows):
                columns.append((NAMES[name], max(6, len(NAMES[name])), _multiple(name)))
        if mode != "overhead":
            columns += [("limit", 5, lambda r: r["limit_by"]), ("of it", 5, _percent("of_limit"))]
            columns.append(("peak", 5, _percent("of_peak")))
        if any("of_bandwidth" in row for row in rows):
            columns.append(("scan", 5, _percent("of_bandwidth")))
        if any("of_budget" in row for row in rows):
            columns.append(("budget", 6, _number("of_budget", 2)))
    columns.append(("", 5, lambda r: "short" if r.get("missed") else ""))
    return columns


def _number(key: str, digits: int | None = None, factor: float = 1.0) -> Callable[[Row], str]:
    def text(row: Row) -> str:
        value = row.get(key)
        if value is None:
            return "-"
        return significant(value * factor) if digits is None else f"{value * factor:.{digits}f}"

    return text


def _percent(key: str) -> Callable[[Row], str]:
    return lambda row: "-" if row.get(key) is None else f"{row[key]:.0%}"


def _multiple(name: str) -> Callable[[Row], str]:
    return lambda row: f"{row[f'{name}_ms'] / row[row['ours'] + '_ms']:.2f}" if f"{name}_ms" in row else "-"


def _quartiles(row: Row) -> str:
    low, high = row[f"{row['ours']}_low"], row[f"{row['ours']}_high"]
    return f"{significant(low)}..{significant(high)}"


def significant(value: float) -> str:
    """Three or four digits, never an exponent: 0.0123, 1.23, 12.3, 1234."""
    for digits, bound in ((0, 1000.0), (1, 100.0), (2, 10.0), (3, 0.1)):
        if abs(value) >= bound:
            return f"{value:.{digits}f}"
    return f"{value:.4f}"


def notes(rows: list[Row]) -> list[str]:
    """Which contenders were left out, why, and where, a line for each reason."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        for name, reason in row.get("left_out", {}).items():
            reasons.setdefault((name, reason), []).append(label(row))
    some = lambda where: f"{len(where)} cases" if len(where) > 2 else ", ".join(where)  # noqa: E731
    return [f"{NAMES[name]} left out of {some(where)}: {reason}" for (name, reason), where in reasons.items()]


def means_table(means: list[Row]) -> str:
    """Geometric means of the ratios: the rival's time over ours."""
    keys = (("torch", "ratio"), ("ORT", "ratio_onnxruntime"), ("OpenVINO", "ratio_openvino"), ("best", "ratio_best"))
    columns: list[Column] = [
        ("mode", 10, lambda r: r["mode"]),
        ("stack", 5, lambda r: "2x2" if r["directions"] == 2 else "1x1"),
        ("cell", 8, lambda r: r["cell"] or "all"),
        ("cases", 5, lambda r: str(r["cases"])),
        *((heading, 8, _number(key, 2)) for heading, key in keys),
    ]
    head = " ".join(f"{heading:>{width}}" for heading, width, _ in columns)
    lines = [" ".join(f"{text(row):>{width}}" for _, width, text in columns) for row in means]
    return "\n".join(["geometric means of rival / rnnfast, in time", head, "-" * len(head), *lines])


def summary(outcomes: list[targets.Outcome]) -> str:
    """The targets, and how many are met."""
    judged = [outcome for outcome in outcomes if outcome.met is not None]
    met = sum(outcome.met is True for outcome in judged)
    unmeasured = len(outcomes) - len(judged)
    end = f"{met} of {len(judged)} targets met" + (f"; {unmeasured} not measured in this run" if unmeasured else "")
    return "\n".join(["targets", *map(str, judged), end])


# Kept -----------------------------------------------------------------------------------------------------------------


def write(out: Path, document: dict[str, Any]) -> None:
    """results.json, and its rows as results.csv, in `out`."""
    out.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"format": FORMAT, **document}, indent=1) + "\n"
    (out / "results.json").write_text(text, encoding="utf-8")
    with (out / "results.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        for row in document["rows"]:
            left_out = "; ".join(f"{name}: {reason}" for name, reason in row.get("left_out", {}).items())
            writer.writerow({**row, "missed": "; ".join(row["missed"]), "left_out": left_out})
