# SPDX-License-Identifier: Apache-2.0
"""The benchmark: what it measures and asks for, its rows and tables, and short runs as a user starts them.

Nothing here asserts a time.
"""

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import memory, readme_table, report, rivals, timing
from benchmarks.cases import BIDIRECTIONAL, MEASURED, MEMORY, STANDARD, Case, all_cases, chosen
from rnnfast.specs import CELLS

ROOT = Path(__file__).resolve().parent.parent
MACHINE = {
    "processor": "P", "cores": 2, "isa": "avx2", "torch": "2.13", "fma_peak_gflops": 100.0, "threads": 2,
}  # fmt: skip


def run(*args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "benchmarks/run.py"), *args]
    return subprocess.run(command, capture_output=True, text=True, timeout=170, check=False)


def fake_rows() -> list[report.Row]:
    """LSTM: 2 ms against torch's 3; the bidirectional one 2 against 1; half of torch's memory."""
    rows = []
    for case in chosen(all_cases(quick=True), "lstm"):
        theirs = 1.0 if case.directions == 2 else 3.0
        if case.mode == "memory":
            rows.append(report.memory_row(case, {"rnnfast": [2 << 20, 1 << 20, 3 << 20], "torch": [4 << 20] * 3}))
        else:
            timings = {"rnnfast": timing.Timing(2.0, 1.5, 2.5, 15), "torch": timing.Timing(theirs, 0.5, 3.5, 15)}
            rows.append(report.time_row(case, timings, 100.0))
    return rows


def test_cases_are_complete() -> None:
    cases = all_cases(quick=False)
    assert len(set(cases)) == len(cases)
    for cell in MEASURED:
        for mode in ("inference", "training"):
            found = chosen(cases, cell, mode)
            assert {c.shape for c in found if c.layers == 1} == set(STANDARD)
            assert {c.shape for c in found if c.directions == 2} == (set(BIDIRECTIONAL) if "rnn" not in cell else set())
        assert [c.H for c in chosen(cases, cell, "streaming")] == [128, 256, 512]
        assert {c.shape for c in chosen(cases, cell, "memory")} == set(MEMORY)
    assert set(MEMORY) == {s for s in STANDARD if s[1] >= 8} | {(100, 1, 512, 512)}
    quick = all_cases(quick=True)
    assert set(quick) < set(cases)
    assert {(c.cell, c.mode) for c in quick} == {(c.cell, c.mode) for c in cases}


def test_chosen() -> None:
    cases = all_cases(quick=False)
    assert chosen(cases) == cases
    assert {c.mode for c in chosen(cases, memory=False)} == {"inference", "training", "streaming"}
    assert [c.directions for c in chosen(cases, "gru", "training", "64,32,256,256")] == [1, 2]
    assert chosen(cases, case="1,2,3,4") == []


@pytest.mark.parametrize(
    ("case", "target"),
    [
        (Case("lstm", "inference", 64, 32, 256, 256), 0.9),
        (Case("lstm", "inference", 64, 32, 256, 256, 2, 2), 0.9),
        (Case("lstm", "inference", 100, 8, 256, 256), 1.0),
        (Case("lstm", "training", 64, 32, 256, 256), 1.0),
        (Case("lstm", "streaming", 1, 1, 512, 512), 1.0),
        (Case("gru", "inference", 64, 32, 256, 256), 1.0),
        (Case("rnn_tanh", "training", 64, 32, 256, 256), 1.0),
        (Case("lstm", "memory", 64, 32, 256, 256), 0.6),
        (Case("gru", "memory", 64, 32, 256, 256), 0.6),
        (Case("rnn_tanh", "memory", 64, 32, 256, 256), 1.0),
    ],
    ids=str,
)
def test_targets(case: Case, target: float) -> None:
    assert case.target == target


def test_flops_by_hand() -> None:
    # a step of one row: G*H dot products of I + H
    assert Case("lstm", "inference", 1, 1, 3, 5).flops == 2 * 4 * 5 * (3 + 5)
    assert Case("gru", "inference", 7, 2, 3, 5).flops == 7 * 2 * 2 * 3 * 5 * (3 + 5)
    assert Case("rnn_tanh", "training", 7, 2, 3, 5).flops == 3 * 7 * 2 * 2 * 5 * (3 + 5)
    # two layers, two directions: the second layer's input is 2H
    assert Case("gru", "inference", 1, 1, 3, 5, 2, 2).flops == 2 * (2 * 3 * 5 * (3 + 5) + 2 * 3 * 5 * (10 + 5))


def test_rows_and_table() -> None:
    rows = fake_rows()
    training = next(r for r in rows if r["mode"] == "training" and r["layers"] == 1)
    assert training["ratio"] == 1.5
    assert training["of_peak"] == pytest.approx(training["gflops"] / 100)
    assert training["gflops"] == pytest.approx(3 * 2 * 100 * 4 * 128 * 256 / 2e-3 * 1e-9)
    kept = next(r for r in rows if r["mode"] == "memory")
    assert (kept["rnnfast_bytes"], kept["bytes_ratio"], kept["bytes_spread"]) == (2 << 20, 0.5, 2 << 20)
    assert [r["mode"] for r in rows if report.missed(r)] == ["inference", "training"]  # the bidirectional ones
    lines = report.table(rows).splitlines()
    assert sum("MISS" in line for line in lines) == 2
    assert all("2x2" in line for line in lines if "MISS" in line)
    assert any("<=0.6" in line for line in lines)
    assert lines[-1] == f"2 of {len(rows)} rows miss their target"
    assert report.missed({**kept, "bytes_ratio": 0.61})
    assert not report.missed({**kept, "bytes_ratio": 0.61, "target": None})
    assert report.table([kept]).count("MISS") == 0


def test_written_report(tmp_path: Path) -> None:
    rows = fake_rows()
    report.write(tmp_path / "new", rows, MACHINE)
    assert json.loads((tmp_path / "new/results.json").read_text()) == {"machine": MACHINE, "rows": rows}
    with (tmp_path / "new/results.csv").open(newline="") as file:
        read = list(csv.DictReader(file))
    assert [r["mode"] for r in read] == [r["mode"] for r in rows]
    assert read[-1]["ratio"] == ""
    assert float(read[-1]["bytes_ratio"]) == 0.5


def test_readme_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    rows = fake_rows()
    rows += [{**row, "cell": "rnn_tanh"} for row in rows if row["layers"] == 1]
    (tmp_path / "results.json").write_text(json.dumps({"machine": MACHINE, "rows": rows}))
    readme = tmp_path / "README.md"
    monkeypatch.setattr(readme_table, "README", readme)
    monkeypatch.setattr(sys, "argv", ["readme_table", str(tmp_path / "results.json")])
    marked = "a\n<!-- ratios -->\nold\n<!-- end of ratios -->\nb\n<!-- memory -->\nold\n<!-- end of memory -->\nc\n"
    readme.write_text(marked)
    assert readme_table.main() == 0
    text = readme.read_text()
    assert "old" not in text
    for line in (
        "Measured on P, 2 cores, avx2, torch 2.13; fp32 FMA peak 100 GF/s on 2 threads.",
        "| LSTM: T, B, I, H | inference, or streaming step | training step "
        "| ours: inference, training (ms) | of FMA peak |",
        "| 100, 1, 128, 128 | 1.50 | 1.50 | 2, 2 | 13%, 39% |",
        "| 1, 1, 512, 512 | 1.50 |  | 2 | 2% |",
        "| 100, 1, 256, 256; 2 layers, 2 directions | 0.50 | 0.50 | 2, 2 | 262%, 786% |",
        "| T, B, I, H | LSTM | RNN (tanh) |",
        "| 64, 32, 256, 256 | 2.0 of 4.0 MB: 0.50 | 2.0 of 4.0 MB: 0.50 |",
    ):
        assert line in text.splitlines()
    assert text.index("LSTM: T") < text.index("RNN (tanh): T") < text.index("\nb\n") < text.index("| LSTM | RNN")
    assert readme_table.main() == 0
    assert readme.read_text() == text  # again: the same
    readme.write_text("a\n<!-- ratios -->\n<!-- end of ratios -->\n")
    assert readme_table.main() == 1
    assert "<!-- memory -->" in capsys.readouterr().err


@pytest.mark.parametrize(
    "path", sorted((ROOT / "benchmarks/results").glob("*/results.json")), ids=lambda p: p.parent.name
)
def test_kept_reports_can_be_shown(path: Path) -> None:
    """The first one has neither cells nor memory."""
    text = readme_table.ratios(json.loads(path.read_text()))
    assert "| LSTM: T, B, I, H |" in text
    assert "| 64, 32, 512, 512 |" in text


def test_rivals_that_disagree_are_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case("lstm", "training", 3, 2, 4, 5)
    assert set(rivals.verified(case)) == {"rnnfast", "torch"}
    made = rivals.module

    def spoilt(case: Case, rival: str) -> torch.nn.Module:
        module = made(case, rival)
        if rival == "rnnfast":
            with torch.no_grad():
                module.get_parameter("bias_hh_l0")[0] += 0.01
        return module

    monkeypatch.setattr(rivals, "module", spoilt)
    with pytest.raises(RuntimeError, match="lstm training 3,2,4,5: rnnfast and torch.nn disagree by"):
        rivals.verified(case)


def test_quick_run(tmp_path: Path) -> None:
    """Every cell at one shape; the lines on screen; JSON and CSV."""
    quick = ("--quick", "--seconds", "0", "--rounds", "2")
    result = run(*quick, "--no-memory", "--case", "100,1,128,128", "--out", str(tmp_path))
    assert result.returncode == 0, result.stderr
    rows = json.loads((tmp_path / "results.json").read_text())["rows"]
    assert {(r["cell"], r["mode"]) for r in rows} == {(c, m) for c in MEASURED for m in ("inference", "training")}
    assert all(r["rnnfast_ms"] > 0 and r["ratio"] > 0 and r["repeats"] == 2 for r in rows)
    assert all(cell in result.stdout for cell in MEASURED)
    assert len((tmp_path / "results.csv").read_text().splitlines()) == 1 + len(rows)
    bad = run(*quick, "--case", "1,2")
    assert bad.returncode == 2
    assert "no case matches" in bad.stderr


needs_reset = pytest.mark.skipif(memory.unavailable() is not None, reason=f"{memory.unavailable()}")


@needs_reset
def test_peak_growth_counts_what_was_allocated() -> None:
    """40 MB that are freed again and 20 MB that remain: 40 beyond what remains. In a process of its own."""
    code = (
        "import torch; from benchmarks.memory import peak_growth\n"
        "def step():\n"
        "    temporary = torch.ones(10 << 20)\n"
        "    return [temporary[: 5 << 20].clone()]\n"
        "print(peak_growth(step)[1])\n"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert int(result.stdout) / 2**20 == pytest.approx(40, abs=1)


@needs_reset
def test_memory_run(tmp_path: Path) -> None:
    """Both rivals keep at least what backward needs: torch its gates; rnnfast S*H a row (and H of the cell state)."""
    result = run("--mode", "memory", "--quick", "--cell", "lstm", "--out", str(tmp_path))
    assert result.returncode == 0, result.stderr
    (row,) = json.loads((tmp_path / "results.json").read_text())["rows"]
    saved = 64 * 32 * (CELLS["lstm"].saved + 1) * 256 * 4
    assert row["rnnfast_bytes"] > 0.5 * saved, row  # gradients not yet touched at the peak count against it
    assert row["torch_bytes"] > 0.5 * saved, row
    assert row["bytes_ratio"] == pytest.approx(row["rnnfast_bytes"] / row["torch_bytes"])
    assert "peak memory of a training step" in result.stdout
