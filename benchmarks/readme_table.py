# SPDX-License-Identifier: Apache-2.0
"""Writes the tables of README.md and docs/training.md from the kept reports:
`python -m benchmarks.readme_table [RESULTS.json ...]`."""

import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rnnfast.specs import CELLS

from .cases import MEASURED
from .page import describe

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
TRAINING = ROOT / "docs/training.md"
KEPT = ROOT / "benchmarks/results"
Row = dict[str, Any]
_TIMED = ("inference", "training", "streaming")
_RIVALS = ("ratio", "ratio_onnxruntime", "ratio_openvino")


def kept() -> list[Path]:
    """The reports that the repository keeps, one for each kind of machine."""
    return [path for path in sorted(KEPT.glob("*/results.json")) if path.parent.name != "local"]


def speed(report: dict[str, Any]) -> str:
    """The machine in words, and a row for each shape: ratios and fractions of the limit of each cell."""
    facts = ["; ".join(f"{name} {text}" for name, text in describe(report["machine"]).items()) + "."]
    rows = [{"cell": "lstm", **row} for row in report["rows"]]  # reports of the first version: LSTM only, unnamed
    if "format" not in report:
        facts.append("An older report: torch.nn is the only rival, and the FMA peak the only limit.")
    share = "of limit" if "format" in report else "of FMA peak"
    cells = [cell for cell in MEASURED if any(row["cell"] == cell for row in rows)]
    shapes: dict[str, dict[tuple[str, str], Row]] = {}
    for row in rows:
        if row["mode"] in _TIMED:
            shapes.setdefault(_label(row), {})[row["cell"], row["mode"]] = row
    head = "| T, B, I, H |" + "".join(f" {title(cell)} | training | {share} |" for cell in cells)
    lines = [head, "| --- |" + " --- | --- | --- |" * len(cells)]
    for label, found in shapes.items():
        fields = [label]
        for cell in cells:
            forward = found.get((cell, "inference")) or found.get((cell, "streaming"))
            training = found.get((cell, "training"))
            fields += [_ratios(forward), _number(training), ", ".join(filter(None, map(_share, (forward, training))))]
        lines.append("| " + " | ".join(fields) + " |")
    return "\n\n".join([" ".join(facts), "\n".join(lines), *_targets(report)])


def memory(report: dict[str, Any]) -> str:
    """A row for each shape, a column for each cell: MB of rnnfast and torch.nn, and their ratio."""
    rows = _of_mode(report, "memory")
    cells = list(dict.fromkeys(row["cell"] for row in rows))
    shapes: dict[str, dict[str, Row]] = {}
    for row in rows:
        shapes.setdefault(_label(row), {})[row["cell"]] = row
    lines = [f"| T, B, I, H | {' | '.join(map(title, cells))} |", "| --- |" + " --- |" * len(cells)]
    for label, found in shapes.items():
        lines.append(f"| {label} | " + " | ".join(_bytes(found.get(cell)) for cell in cells) + " |")
    return "MB, rnnfast / torch.nn.\n\n" + "\n".join(lines)


def recomputation(report: dict[str, Any]) -> str:
    """A row for each cell and shape: what a training step costs with recomputation and without, in time and memory."""
    lines = [
        "| cell | T, B, I, H | ms with / without | MB with / without / torch.nn | of torch.nn's MB |",
        "| --- | --- | --- | --- | --- |",
    ]
    for row in _of_mode(report, "recomputation"):
        times = f"{row['recomputation_ms']:.0f} / {row['rnnfast_ms']:.0f} = {row['time_ratio']:.2f}"
        sizes = " / ".join(f"{row[f'{name}_bytes'] / 2**20:.1f}" for name in ("recomputation", "rnnfast", "torch"))
        lines.append(f"| {title(row['cell'])} | {_label(row)} | {times} | {sizes} | {row['bytes_ratio']:.3f} |")
    named = _machine(report, "processor", "instruction set", "threads", "other work")
    return f"{named}.\n\n" + "\n".join(lines)


def control(report: dict[str, Any]) -> str:
    """A row for each shape, of each cell: what the backward pass with a control takes of the plain one's time."""
    lines = [
        "| cell | T, B, I, H | plain, ms | by value | by norm | truncated | recorded | plain again |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in report["rows"]:
        ratios = " | ".join(f"{row[name]:.2f}" for name in ("value", "norm", "steps", "record", "again"))
        lines.append(f"| {title(row['cell'])} | {_label(row)} | {row['plain_ms']:.2f} | {ratios} |")
    named = _machine(report, "processor", "instruction set")
    return f"{named}; {report['threads']} threads.\n\n" + "\n".join(lines)


def _machine(report: dict[str, Any], *names: str) -> str:
    facts = describe(report["machine"])
    return "; ".join(f"{name} {facts[name]}" for name in names if name in facts)


def _of_mode(report: dict[str, Any], *modes: str) -> list[Row]:
    return [row for row in report["rows"] if row["mode"] in modes]


def title(cell: str) -> str:
    """LSTM, GRU, RNN (tanh)."""
    spec = CELLS[cell]
    return spec.label + (f" ({spec.nonlinearity})" if spec.nonlinearity else "")


def _label(row: Row) -> str:
    layers, directions = row.get("layers", 1), row.get("directions", 1)
    stack = "" if layers == directions == 1 else f"; {layers} layers, {directions} directions"
    return ", ".join(str(row[k]) for k in "TBIH") + stack


def _ratios(row: Row | None) -> str:
    """torch.nn / ONNX Runtime / OpenVINO, as far as they were measured."""
    if row is None:
        return ""
    if all(row.get(key) is None for key in _RIVALS[1:]):
        return _number(row)
    return " / ".join("-" if row.get(key) is None else f"{row[key]:.2f}" for key in _RIVALS)


def _number(row: Row | None) -> str:
    return "" if row is None or row.get("ratio") is None else f"{row['ratio']:.2f}"


def _share(row: Row | None) -> str:
    return "" if row is None else f"{row.get('of_limit', row['of_peak']):.0%}"


def _bytes(row: Row | None) -> str:
    if row is None:
        return ""
    return f"{row['rnnfast_bytes'] / 2**20:.1f} / {row['torch_bytes'] / 2**20:.1f} = {row['bytes_ratio']:.2f}"


def _targets(report: dict[str, Any]) -> list[str]:
    judged = [outcome for outcome in report.get("outcomes", []) if outcome["met"] is not None]
    if not judged:
        return []
    missed = [f"{o['what']} ({o['needed']}: {o['got']})" for o in judged if not o["met"]]
    text = f"{len(judged) - len(missed)} of {len(judged)} targets met"
    return [text + (". Missed: " + "; ".join(missed) if missed else "") + "."]


def write(path: Path, tables: dict[str, dict[str, str]]) -> None:
    """Puts tables into a file: by the marker that they go to, then by report. Where there is none, the text stays."""
    text = path.read_text(encoding="utf-8")
    for name, found in tables.items():
        if found:
            try:
                text = replaced(text, name, "\n\n".join(found.values()))
            except ValueError as error:
                raise ValueError(f"{path.name}: {error}") from None
    path.write_text(text, encoding="utf-8")


def replaced(text: str, name: str, table: str) -> str:
    """text with the table between <!-- name --> and <!-- end of name -->. Raises ValueError where they are missing."""
    begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    text, found = re.subn(f"{begin}.*{end}", lambda _: f"{begin}\n{table}\n{end}", text, flags=re.S)
    if found != 1:
        raise ValueError(f"expected {begin} ... {end} once, where the table goes")
    return text


def main(arguments: Sequence[str] | None = None) -> int:
    """Replaces what stands between the markers; without arguments, from all kept reports."""
    paths = [Path(name) for name in (sys.argv[1:] if arguments is None else arguments)] or kept()
    try:
        reports = {path.parent.name: json.loads(path.read_text(encoding="utf-8")) for path in paths}
        ratios = {n: f"### {n}\n\n{speed(r)}" for n, r in reports.items() if _of_mode(r, *_TIMED)}
        memories = {n: f"{n}: {memory(r)}" for n, r in reports.items() if _of_mode(r, "memory")}
        again = {n: f"{n}: {recomputation(r)}" for n, r in reports.items() if _of_mode(r, "recomputation")}
        write(README, {"ratios": ratios, "memory": memories})
        controls = {p.parent.name: p for path in paths if (p := path.with_name("control.json")).is_file()}
        costs = {n: f"{n}: {control(json.loads(p.read_text(encoding='utf-8')))}" for n, p in controls.items()}
        write(TRAINING, {"recomputation": again, "control": costs})
    except (ValueError, OSError) as error:
        print(f"benchmarks.readme_table: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
