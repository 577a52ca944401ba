# SPDX-License-Identifier: Apache-2.0
"""The benchmark: what it measures, and short runs as a user starts them. Its contenders: test_benchmark_rivals.py; its
report: test_benchmark_report.py. Nothing here asserts a time.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import control, memory, rivals, runtimes
from benchmarks import run as runner
from benchmarks.cases import BIDIRECTIONAL, MEASURED, MEMORY, MODES, RECOMPUTATION, STANDARD, Case, all_cases, chosen
from rnnfast import _C, bench
from rnnfast.specs import CELLS

ROOT = Path(__file__).resolve().parent.parent


def run(*args: str, **kwargs: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "rnnfast", "bench", *args]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, env=environment, **kwargs)


def parsed(*args: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    bench.add_arguments(parser)
    return parser.parse_args(args)


def test_cases_are_complete() -> None:
    cases = all_cases(quick=False)
    assert len(set(cases)) == len(cases)
    for cell in MEASURED:
        for mode in ("inference", "training"):
            found = chosen(cases, cell, mode)
            assert {c.shape for c in found if c.layers == 1} == set(STANDARD)
            assert {c.shape for c in found if c.directions == 2} == (set(BIDIRECTIONAL) if "rnn" not in cell else set())
        assert [c.H for c in chosen(cases, cell, "streaming")] == [128, 256, 512]
        assert [c.shape for c in chosen(cases, cell, "overhead")] == [(1, 1, 16, 16)]
        assert {c.shape for c in chosen(cases, cell, "memory")} == set(MEMORY)
        assert [c.shape for c in chosen(cases, cell, "recomputation")] == list(RECOMPUTATION)
    assert (20000, 16, 256, 256) in RECOMPUTATION
    assert set(MEMORY) == {s for s in STANDARD if s[1] >= 8} | {(100, 1, 512, 512)}
    quick = all_cases(quick=True)
    assert set(quick) < set(cases)
    assert {(c.cell, c.mode) for c in quick} == {(c.cell, c.mode) for c in cases}


def test_chosen() -> None:
    cases = all_cases(quick=False)
    assert chosen(cases) == [c for c in cases if c.mode != "recomputation"]  # which is measured only where it is named
    assert {c.mode for c in chosen(cases, memory=False)} == set(MODES) - {"memory", "recomputation"}
    assert chosen(cases, mode="recomputation", memory=False) == []
    assert [c.directions for c in chosen(cases, "gru", "training", "64,32,256,256")] == [1, 2]
    assert chosen(cases, case="1,2,3,4") == []


def test_choices_of_the_command_line() -> None:
    """rnnfast/bench.py names them without importing the benchmark."""
    assert (bench.CELLS, bench.MODES, bench.RIVALS) == (MEASURED, MODES, rivals.RIVALS)
    assert bench.find() == "benchmarks"


def test_flops_by_hand() -> None:
    # a step of one row: G*H dot products of I + H
    assert Case("lstm", "inference", 1, 1, 3, 5).flops == 2 * 4 * 5 * (3 + 5)
    assert Case("gru", "inference", 7, 2, 3, 5).flops == 7 * 2 * 2 * 3 * 5 * (3 + 5)
    assert Case("rnn_tanh", "training", 7, 2, 3, 5).flops == 3 * 7 * 2 * 2 * 5 * (3 + 5)
    # two layers, two directions: the second layer's input is 2H
    assert Case("gru", "inference", 1, 1, 3, 5, 2, 2).flops == 2 * (2 * 3 * 5 * (3 + 5) + 2 * 3 * 5 * (10 + 5))


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--case", "1,2"], "no case matches"),
        (["--cell", "lsmt"], "invalid choice: 'lsmt'"),
        (["--mode", "speed"], "invalid choice: 'speed'"),
        (["--rivals", "torch,caffe"], "got 'caffe'"),
        (["--threads", "0"], "at least 1, got '0'"),
        (["--rounds", "1"], "at least 2, got '1'"),
        (["--seconds", "nan"], "not negative, got 'nan'"),
        (["--out", "file"], "--out: "),
    ],
)
def test_bad_arguments(args: list[str], words: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = run(*args, cwd=tmp_path)
    assert result.returncode == 2, result
    assert words in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_help_has_examples() -> None:
    result = run("--help")
    assert result.returncode == 0
    assert "examples:" in result.stdout
    assert "rnnfast bench --quick" in result.stdout


def test_quick_run(tmp_path: Path) -> None:
    """From a folder with a benchmarks/ of its own: one shape of each cell; screen, JSON, CSV, plots and page."""
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks/__init__.py").write_text("raise ImportError('not this one')")
    quick = ("--quick", "--seconds", "0", "--rounds", "2", "--rivals", "torch,onnxruntime", "--out", "out")
    result = run(*quick, "--no-memory", "--case", "100,1,128,128", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    document = json.loads((tmp_path / "out/results.json").read_text())
    rows = document["rows"]
    if not any("skipped" in note for note in document["notes"]):  # on a machine that is very busy
        assert {(r["cell"], r["mode"]) for r in rows} == {(c, m) for c in MEASURED for m in ("inference", "training")}
        assert all(cell in result.stdout for cell in MEASURED)
    assert all(r["rnnfast_ms"] > 0 and r["ratio"] > 0 and r["repeats"] >= 2 and r["of_limit"] > 0 for r in rows)
    assert all(r["recurrence_gbs"] > 0 for r in rows if r["mode"] == "inference")
    assert document["complete"]
    assert not document["failures"]
    if runtimes.versions()["onnxruntime"] and runtimes.versions()["onnx"]:
        assert all("onnxruntime_ms" in r for r in rows if r["mode"] == "inference")
    else:
        assert "ORT left out" in result.stdout
    assert not any("openvino_ms" in r for r in rows)
    assert "targets met" in result.stdout
    assert "lstm inference 100,1,128,128" in result.stderr  # progress
    assert "<!doctype html>" in (tmp_path / "out/report.html").read_text()
    assert len((tmp_path / "out/results.csv").read_text().splitlines()) == 1 + len(rows)


def test_interrupt_keeps_what_was_measured(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "rnnfast", "bench", "--cell", "rnn_tanh", "--mode", "streaming", "--seconds", "3"]
    process = subprocess.Popen(
        [*command, "--rivals", "torch", "--no-plots", "--out", str(tmp_path)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
        # A script in the background ignores the signal, and hands that on.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    assert process.stderr is not None
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline:
        if "[2/3]" in process.stderr.readline():
            break
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=100)
    assert process.returncode == 130, stderr
    document = json.loads((tmp_path / "results.json").read_text())
    assert 1 <= len(document["rows"]) < 3
    assert not document["complete"]
    assert "interrupted" in stderr


def test_failures_of_ours_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 1; the other cases are measured all the same."""
    verified = rivals.verified

    def spoilt(case: Case, *rest: Any) -> Any:
        if case.H == 256:
            raise rivals.Disagreement("a number is wrong")
        return verified(case, *rest)

    monkeypatch.setattr(rivals, "verified", spoilt)
    monkeypatch.setattr(runner, "measure_limits", lambda threads: (runner.Limits(threads, 100.0, {}), "not here"))
    options = ("--cell", "gru", "--mode", "streaming", "--seconds", "0", "--rounds", "2", "--rivals", "torch")
    assert runner.run(parsed(*options, "--no-plots", "--out", str(tmp_path))) == 1
    document = json.loads((tmp_path / "results.json").read_text())
    assert [row["H"] for row in document["rows"]] == [128, 512]
    assert document["failures"] == ["gru streaming 1,1,256,256: Disagreement: a number is wrong"]
    assert document["notes"] == ["not here"]
    assert "FAILED: gru streaming 1,1,256,256" in capsys.readouterr().out


def test_quick_ends() -> None:
    """On a slow machine it skips cases, and says which."""
    found = runner.Found()
    runner.measure(all_cases(quick=True)[:2], [], parsed("--quick"), found, -1.0)
    assert found.measured == []
    assert found.skipped == ["lstm inference 100,1,128,128", "lstm training 100,1,128,128"]


def test_sweeps_by_default() -> None:
    cases = all_cases(quick=True)
    assert {p.case.cell for p in runner.points(parsed(), cases)} == set(MEASURED)
    assert {p.case.cell for p in runner.points(parsed("--quick"), cases)} == {"lstm"}
    assert runner.points(parsed("--no-sweeps"), cases) == []
    assert runner.points(parsed("--mode", "training"), cases) == []
    assert runner.points(parsed("--mode", "training", "--sweeps"), cases) != []


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
    result = run("--mode", "memory", "--quick", "--cell", "lstm", "--no-plots", "--out", str(tmp_path))
    assert result.returncode == 0, result.stderr
    (row,) = json.loads((tmp_path / "results.json").read_text())["rows"]
    saved = 64 * 32 * (CELLS["lstm"].saved + 1) * 256 * 4
    assert row["rnnfast_bytes"] > 0.5 * saved, row  # gradients not yet touched at the peak count against it
    assert row["torch_bytes"] > 0.5 * saved, row
    assert row["bytes_ratio"] == pytest.approx(row["rnnfast_bytes"] / row["torch_bytes"])
    assert "peak memory of a training step" in result.stdout


@needs_reset
def test_recomputation_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A short sequence: both of ours are timed, all three have their memory measured, and recomputation needs least."""
    monkeypatch.setattr(runner, "measure_limits", lambda threads: (runner.Limits(threads, 100.0, {}), None))
    small = Case("lstm", "recomputation", 400, 8, 64, 64)
    monkeypatch.setattr(runner, "all_cases", lambda quick: [small])
    options = ("--mode", "recomputation", "--seconds", "0", "--rounds", "2", "--threads", "1", "--no-plots")
    assert runner.run(parsed(*options, "--out", str(tmp_path))) == 0
    (row,) = json.loads((tmp_path / "results.json").read_text())["rows"]
    assert row["time_ratio"] == pytest.approx(row["recomputation_ms"] / row["rnnfast_ms"])
    assert row["recomputation_low"] <= row["recomputation_ms"] <= row["recomputation_high"]
    assert row["bytes_ratio"] == pytest.approx(row["recomputation_bytes"] / row["torch_bytes"])
    assert row["recomputation_bytes"] < row["torch_bytes"]
    assert "rnnfast_bytes" in row
    assert "torch_ms" not in row


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn_tanh"])
def test_cost_of_control(cell: str) -> None:
    """Each control takes effect."""
    shape = (40, 3, 5, 7)
    recorder = _C.open_recorder()
    try:
        passes = {name: control.backward(cell, shape, name, recorder)() for name in control.CONTROLS}
        assert len(_C.recorded(recorder)) == 1
    finally:
        _C.close_recorder(recorder)
    for name, (grad_x, *_) in passes.items():
        assert torch.allclose(grad_x, passes["plain"][0]) == (name in ("plain", "again", "record")), name
    row = control.measure(cell, shape, 0.0, 2)
    assert (row["T"], row["H"]) == (40, 7)
    assert (row["rounds"], row["norm_low"] <= row["norm"] <= row["norm_high"]) == (2, True)
