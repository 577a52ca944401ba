# SPDX-License-Identifier: Apache-2.0
"""Rows to a table on screen, CSV and JSON."""

import csv
import json
from pathlib import Path
from typing import Any

from benchmarks.cases import TARGETS, Case
from benchmarks.timing import Timing

COLUMNS = (
    "mode", "T", "B", "I", "H", "rnnfast_ms", "rnnfast_low", "rnnfast_high", "torch_ms", "torch_low", "torch_high",
    "ratio", "gflops", "of_peak", "target", "repeats",
)  # fmt: skip


def row(case: Case, timings: dict[str, Timing], peak: float, avx512: bool) -> dict[str, Any]:
    """One case's figures. ratio: torch's median over ours; of_peak: fraction of the FMA peak measured in this run."""
    ours, theirs = timings["rnnfast"], timings["torch"]
    gflops = case.flops / ours.median * 1e-6
    target = TARGETS.get((case.mode, case.shape))
    values = (
        case.mode, *case.shape, ours.median, ours.low, ours.high, theirs.median, theirs.low, theirs.high,
        theirs.median / ours.median, gflops, gflops / peak, target and target[0 if avx512 else 1], ours.repeats,
    )  # fmt: skip
    return dict(zip(COLUMNS, values, strict=True))


def table(rows: list[dict[str, Any]]) -> str:
    """For people."""
    head = (
        f"{'mode':10} {'T,B,I,H':>18} {'rnnfast ms (quartiles)':>29} {'torch ms (quartiles)':>29} "
        f"{'ratio':>6} {'GF/s':>6} {'peak':>5} {'target':>7}"
    )
    lines = [head, "-" * len(head)]
    for r in rows:
        shape = ",".join(str(r[k]) for k in "TBIH")
        cells = [f"{r[f'{n}_ms']:9.3f} ({r[f'{n}_low']:8.3f}..{r[f'{n}_high']:8.3f})" for n in ("rnnfast", "torch")]
        target = "" if r["target"] is None else f">={r['target']:g}" + ("" if r["ratio"] >= r["target"] else " MISS")
        lines.append(
            f"{r['mode']:10} {shape:>18} {cells[0]:>29} {cells[1]:>29} {r['ratio']:6.2f} {r['gflops']:6.0f} "
            f"{r['of_peak']:5.0%} {target:>7}"
        )
    return "\n".join(lines)


def write(out: Path, rows: list[dict[str, Any]], machine: dict[str, Any]) -> None:
    """results.json and results.csv in `out`."""
    out.mkdir(parents=True, exist_ok=True)
    document = {"machine": machine, "rows": rows}
    (out / "results.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    with (out / "results.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
