# SPDX-License-Identifier: Apache-2.0
"""Writes README.md's tables from a kept report: `python -m benchmarks.readme_table RESULTS.json`."""

import json
import re
import sys
from pathlib import Path
from typing import Any

from rnnfast.specs import CELLS

README = Path(__file__).resolve().parent.parent / "README.md"


def ratios(report: dict[str, Any]) -> str:
    """A table for each cell, a row for each shape: ratio in inference and training, fraction of the FMA peak."""
    machine = report["machine"]
    blocks = [
        f"Measured on {machine['processor']}, {machine['cores']} cores, {machine['isa']}, torch {machine['torch']}; "
        f"fp32 FMA peak {machine['fma_peak_gflops']:.0f} GF/s on {machine['threads']} threads."
    ]
    cells: dict[str, dict[str, dict[str, Any]]] = {}
    for row in report["rows"]:
        if row["mode"] != "memory":
            shapes = cells.setdefault(row.get("cell", "lstm"), {})  # reports of the first version: LSTM only
            shapes.setdefault(_label(row), {})[row["mode"]] = row
    for cell, shapes in cells.items():
        lines = [
            f"| {title(cell)}: T, B, I, H | inference, or streaming step | training step "
            "| ours: inference, training (ms) | of FMA peak |",
            "| --- | --- | --- | --- | --- |",
            *(_line(label, modes) for label, modes in shapes.items()),
        ]
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def memory(report: dict[str, Any]) -> str:
    """A row for each shape, a column for each cell: MB of rnnfast and torch.nn, and their ratio."""
    rows = [row for row in report["rows"] if row["mode"] == "memory"]
    cells = list(dict.fromkeys(row["cell"] for row in rows))
    shapes: dict[str, dict[str, dict[str, Any]]] = {}
    for row in rows:
        shapes.setdefault(_label(row), {})[row["cell"]] = row
    lines = [f"| T, B, I, H | {' | '.join(map(title, cells))} |", "| --- |" + " --- |" * len(cells)]
    for label, found in shapes.items():
        lines.append(f"| {label} | " + " | ".join(_bytes(found.get(cell)) for cell in cells) + " |")
    return "\n".join(lines)


def title(cell: str) -> str:
    """LSTM, GRU, RNN (tanh)."""
    spec = CELLS[cell]
    return spec.label + (f" ({spec.nonlinearity})" if spec.nonlinearity else "")


def _label(row: dict[str, Any]) -> str:
    layers, directions = row.get("layers", 1), row.get("directions", 1)
    stack = "" if layers == directions == 1 else f"; {layers} layers, {directions} directions"
    return ", ".join(str(row[k]) for k in "TBIH") + stack


def _line(label: str, modes: dict[str, dict[str, Any]]) -> str:
    shown = [modes.get("inference") or modes.get("streaming"), modes.get("training")]
    given = [row for row in shown if row]
    fields = [f"{row['ratio']:.2f}" if row else "" for row in shown]
    fields.append(", ".join(f"{row['rnnfast_ms']:.3g}" for row in given))
    fields.append(", ".join(f"{row['of_peak']:.0%}" for row in given))
    return f"| {label} | " + " | ".join(fields) + " |"


def _bytes(row: dict[str, Any] | None) -> str:
    if row is None:
        return ""
    return f"{row['rnnfast_bytes'] / 2**20:.1f} of {row['torch_bytes'] / 2**20:.1f} MB: {row['bytes_ratio']:.2f}"


def replaced(text: str, name: str, table: str) -> str:
    """text with the table between <!-- name --> and <!-- end of name -->. Raises ValueError where they are missing."""
    begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    text, found = re.subn(f"{begin}.*{end}", lambda _: f"{begin}\n{table}\n{end}", text, flags=re.S)
    if found != 1:
        raise ValueError(f"README.md: expected {begin} ... {end} once, where the table goes")
    return text


def main() -> int:
    """Replaces what stands between the markers."""
    if len(sys.argv) != 2:
        print("usage: python -m benchmarks.readme_table RESULTS.json", file=sys.stderr)
        return 2
    report = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    text = README.read_text(encoding="utf-8")
    try:
        text = replaced(text, "ratios", ratios(report))
        if any(row["mode"] == "memory" for row in report["rows"]):
            text = replaced(text, "memory", memory(report))
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    README.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
