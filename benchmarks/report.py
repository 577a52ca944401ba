# SPDX-License-Identifier: Apache-2.0
"""Rows to a table on screen, CSV and JSON."""

import csv
import json
import statistics
from pathlib import Path
from typing import Any

from benchmarks.cases import Case
from benchmarks.timing import Timing

Row = dict[str, Any]

_CASE = ("cell", "mode", "layers", "directions", "T", "B", "I", "H")
_RIVALS = ("rnnfast", "torch")
COLUMNS = (
    *_CASE, "rnnfast_ms", "rnnfast_low", "rnnfast_high", "torch_ms", "torch_low", "torch_high", "ratio",
    "gflops", "of_peak", "rnnfast_bytes", "torch_bytes", "bytes_ratio", "bytes_spread", "target", "repeats",
)  # fmt: skip


def time_row(case: Case, timings: dict[str, Timing], peak: float) -> Row:
    """One case's times. ratio: torch's median over ours; of_peak: fraction of the FMA peak measured in this run."""
    row = _start(case)
    for name in _RIVALS:
        timing = timings[name]
        row |= {f"{name}_ms": timing.median, f"{name}_low": timing.low, f"{name}_high": timing.high}
    row["ratio"] = row["torch_ms"] / row["rnnfast_ms"]
    row["gflops"] = case.flops / row["rnnfast_ms"] * 1e-6
    row["of_peak"] = row["gflops"] / peak
    return row | {"target": case.target, "repeats": timings["rnnfast"].repeats}


def memory_row(case: Case, measured: dict[str, list[int]]) -> Row:
    """One case's bytes, medians. bytes_ratio: ours over torch's; bytes_spread: the larger range of either's repeats."""
    row = _start(case)
    row |= {f"{name}_bytes": int(statistics.median(measured[name])) for name in _RIVALS}
    row["bytes_ratio"] = row["rnnfast_bytes"] / max(row["torch_bytes"], 1)
    row["bytes_spread"] = max(max(values) - min(values) for values in measured.values())
    return row | {"target": case.target, "repeats": len(measured["rnnfast"])}


def _start(case: Case) -> Row:
    return {name: getattr(case, name) for name in _CASE}


def missed(row: Row) -> bool:
    """Whether the row is short of its target; without a target it is not."""
    if row["target"] is None:
        return False
    return bool(row["bytes_ratio"] > row["target"] if row["mode"] == "memory" else row["ratio"] < row["target"])


def table(rows: list[Row]) -> str:
    """For people: times, then memory."""
    times = [row for row in rows if row["mode"] != "memory"]
    memory = [row for row in rows if row["mode"] == "memory"]
    blocks = []
    if times:
        head = (
            f"{'cell':8} {'mode':9} {'T,B,I,H':>18} {'rnnfast ms (quartiles)':>29} {'torch ms (quartiles)':>29} "
            f"{'ratio':>6} {'GF/s':>6} {'peak':>5} {'target':>11}"
        )
        blocks.append("\n".join([head, "-" * len(head), *map(_time_line, times)]))
    if memory:
        head = (
            f"{'cell':8} {'T,B,I,H':>18} {'rnnfast MB':>11} {'torch MB':>9} {'spread':>7} "
            f"{'rnnfast/torch':>14} {'target':>11}"
        )
        title = "peak memory of a training step beyond inputs, outputs and gradients"
        blocks.append("\n".join([title, head, "-" * len(head), *map(_memory_line, memory)]))
    misses = sum(map(missed, rows))
    return "\n\n".join([*blocks, f"{misses} of {len(rows)} rows miss their target"])


def _time_line(r: Row) -> str:
    cells = [f"{r[f'{n}_ms']:9.3f} ({r[f'{n}_low']:8.3f}..{r[f'{n}_high']:8.3f})" for n in _RIVALS]
    return (
        f"{r['cell']:8} {r['mode']:9} {_shape(r):>18} {cells[0]:>29} {cells[1]:>29} {r['ratio']:6.2f} "
        f"{r['gflops']:6.0f} {r['of_peak']:5.0%} {_verdict(r, '>='):>11}"
    )


def _memory_line(r: Row) -> str:
    ours, theirs, spread = (r[name] / 2**20 for name in ("rnnfast_bytes", "torch_bytes", "bytes_spread"))
    return (
        f"{r['cell']:8} {_shape(r):>18} {ours:11.2f} {theirs:9.2f} {spread:7.2f} {r['bytes_ratio']:14.2f} "
        f"{_verdict(r, '<='):>11}"
    )


def _shape(r: Row) -> str:
    stack = "" if r["layers"] == r["directions"] == 1 else f" {r['layers']}x{r['directions']}"  # layers x directions
    return ",".join(str(r[k]) for k in "TBIH") + stack


def _verdict(r: Row, sign: str) -> str:
    return "" if r["target"] is None else f"{sign}{r['target']:g}" + (" MISS" if missed(r) else "")


def write(out: Path, rows: list[Row], machine: dict[str, Any]) -> None:
    """results.json and results.csv in `out`."""
    out.mkdir(parents=True, exist_ok=True)
    document = {"machine": machine, "rows": rows}
    (out / "results.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    with (out / "results.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
