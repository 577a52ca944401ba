# SPDX-License-Identifier: Apache-2.0
"""Writes README.md's table of ratios from a kept report: `python -m benchmarks.readme_table RESULTS.json`."""

import json
import re
import sys
from pathlib import Path

README = Path(__file__).resolve().parent.parent / "README.md"


def markdown(report: dict) -> str:
    """One row a shape: ratio in inference and training, and what fraction of the FMA peak training reaches."""
    rows: dict[tuple, dict[str, dict]] = {}
    for row in report["rows"]:
        rows.setdefault(tuple(row[k] for k in "TBIH"), {})[row["mode"]] = row
    lines = [
        "| T, B, I, H | inference, or streaming step | training step | ours: inference, training (ms) | of FMA peak |",
        "| --- | --- | --- | --- | --- |",
    ]
    for shape, modes in rows.items():
        first = modes.get("inference") or modes["streaming"]
        cells = [", ".join(map(str, shape)), f"{first['ratio']:.2f}"]
        training = modes.get("training")
        cells.append(f"{training['ratio']:.2f}" if training else "")
        cells.append(f"{first['rnnfast_ms']:.3g}" + (f", {training['rnnfast_ms']:.3g}" if training else ""))
        cells.append(f"{first['of_peak']:.0%}" + (f", {training['of_peak']:.0%}" if training else ""))
        lines.append("| " + " | ".join(cells) + " |")
    machine = report["machine"]
    caption = (
        f"Measured on {machine['processor']}, {machine['cores']} cores, {machine['isa']}, torch {machine['torch']}; "
        f"fp32 FMA peak {machine['fma_peak_gflops']:.0f} GF/s on {machine['threads']} threads."
    )
    return caption + "\n\n" + "\n".join(lines)


def main() -> int:
    """Replaces what stands between the markers."""
    report = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    text = README.read_text(encoding="utf-8")
    block = f"<!-- ratios -->\n{markdown(report)}\n<!-- end of ratios -->"
    text, found = re.subn(r"<!-- ratios -->.*<!-- end of ratios -->", lambda _: block, text, flags=re.S)
    if found != 1:
        print("README.md has no place for the table (<!-- ratios --> ... <!-- end of ratios -->)", file=sys.stderr)
        return 1
    README.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
