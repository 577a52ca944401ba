# SPDX-License-Identifier: Apache-2.0
"""One HTML page of a report, with its images inside it: nothing else is needed to read or send it."""

import base64
from collections.abc import Iterable
from html import escape
from pathlib import Path
from typing import Any

from . import report
from .cases import MODES

STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; max-width: 75em; margin: 2em auto; padding: 0 1em; color: #222 }
table { border-collapse: collapse; margin: 1em 0; font-variant-numeric: tabular-nums; font-size: 13px }
td, th { padding: .15em .7em; text-align: right; border-bottom: 1px solid #ddd }
td:nth-child(-n+2), th:nth-child(-n+2) { text-align: left }
.short, .missed { color: #b00020 } .met { color: #1b6e2c } img { max-width: 100%; margin: 1em 0 }
@media (prefers-color-scheme: dark) { body { background: #181818; color: #ddd } img { background: #fff } }
"""


def write(path: Path, document: dict[str, Any], images: Iterable[Path]) -> None:
    """The page of a report (as it stands in results.json) with these PNG files."""
    path.write_text(html(document, [(image.stem, image.read_bytes()) for image in images]), encoding="utf-8")


def html(document: dict[str, Any], images: Iterable[tuple[str, bytes]]) -> str:
    """The page's text."""
    parts = [
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width'>"
        f"<title>rnnfast: benchmark</title><style>{STYLE}</style></head><body><h1>rnnfast: benchmark</h1>",
        "<h2>Machine</h2>", _facts(describe(document["machine"])),
        "<h2>Targets</h2>", _outcomes(document.get("outcomes", [])),
    ]  # fmt: skip
    for name, png in images:
        data = base64.b64encode(png).decode("ascii")
        parts.append(f"<h2>{escape(name)}</h2><img alt='{escape(name)}' src='data:image/png;base64,{data}'>")
    for mode in MODES:
        rows = [row for row in document["rows"] if row["mode"] == mode]
        if rows:
            parts += [f"<h2>{escape(report.TITLES[mode])}</h2>", _rows(mode, rows)]
    notes = [*document.get("notes", []), *document.get("failures", [])]
    if notes:
        parts.append("<h2>Left out</h2><ul>" + "".join(f"<li>{escape(note)}</li>" for note in notes) + "</ul>")
    return "\n".join([*parts, "</body></html>\n"])


def describe(machine: dict[str, Any]) -> dict[str, str]:
    """What a reader must know of the machine, in words; of reports of either format."""
    caches = ", ".join(f"{name} {size}" for name, size in machine.get("caches", {}).items())
    names = {"torch": "torch", "onnxruntime": "ONNX Runtime", "openvino": "OpenVINO", "rnnfast": "rnnfast"}
    facts = {
        "processor": f"{machine['processor']}, {machine['cores']} cores",
        "caches": caches,
        "instruction set": machine["isa"],
        "versions": ", ".join(f"{name} {machine[key]}" for key, name in names.items() if machine.get(key)),
        "threads": str(machine.get("threads", "")),
        "fp32 FMA peak": f"{machine['fma_peak_gflops']:.0f} GF/s" if "fma_peak_gflops" in machine else "",
    }
    bandwidth = machine.get("read_bandwidth_gbs")
    if bandwidth:
        levels = ", ".join(f"{int(size) // 1024}: {speed:.0f}" for size, speed in bandwidth.items())
        facts["read bandwidth, GB/s by KB a thread"] = levels
    if machine.get("load", 0) > 0.5:
        facts["other work"] = f"load {machine['load']:.1f} when it began: the times are noisy"
    return {name: text for name, text in facts.items() if text}


def _facts(facts: dict[str, str]) -> str:
    return (
        "<table>" + "".join(f"<tr><td>{escape(k)}</td><td>{escape(v)}</td></tr>" for k, v in facts.items()) + "</table>"
    )


def _outcomes(found: list[dict[str, Any]]) -> str:
    lines = []
    for outcome in found:
        kind, verdict = {True: ("met", "met"), False: ("missed", "missed"), None: ("", "not measured")}[outcome["met"]]
        fields = (outcome["what"], outcome["needed"], outcome["got"], ", ".join(outcome["misses"]))
        cells = "".join(f"<td>{escape(field)}</td>" for field in fields)
        lines.append(f"<tr><td class='{kind}'>{verdict}</td>{cells}</tr>")
    head = "".join(f"<th>{name}</th>" for name in ("", "what", "needed", "reached", "short of it"))
    return f"<table><tr>{head}</tr>{''.join(lines)}</table>"


def _rows(mode: str, rows: list[dict[str, Any]]) -> str:
    columns = report.columns_of(mode, rows)
    head = "".join(f"<th>{escape(heading)}</th>" for heading, _, _ in columns)
    lines = []
    for row in rows:
        cells = "".join(f"<td>{escape(text(row))}</td>" for _, _, text in columns)
        why = escape("; ".join(row.get("missed", [])))
        lines.append(f"<tr class='{'short' if why else ''}' title='{why}'>{cells}</tr>")
    return f"<table><tr>{head}</tr>{''.join(lines)}</table>"
