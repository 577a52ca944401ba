# SPDX-License-Identifier: Apache-2.0
"""The day of a GPU, as far as it goes without one: the benchmark's program on the CPU, and what the script refuses."""

import json
import os
import re
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import gpu
from benchmarks.cases import STANDARD
from benchmarks.gpu_cases import DTYPES, GpuCase, cases, rehearsal
from rnnfast.specs import CELLS

ROOT = Path(__file__).resolve().parent.parent
NO_DEVICE = pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
CASE = GpuCase("gru", "training", "float32", 3, 2, 4, 5)


def test_the_cases() -> None:
    every = cases()
    assert len(set(every)) == len(every)
    assert {case.cell for case in every} <= set(CELLS)
    assert {case.dtype for case in every} == set(DTYPES)
    lstm = [case for case in every if (case.cell, case.dtype, case.directions) == ("lstm", "float32", 1)]
    assert [(c.T, c.B, c.I, c.H) for c in lstm if c.mode == "training"][: len(STANDARD)] == list(STANDARD)
    assert any((case.T, case.B, case.H) == (1024, 16, 768) for case in every)
    assert {(c.B, c.H) for c in every} >= {(B, H) for B in (1, 32, 64, 128) for H in (64, 128, 256, 512)}
    assert all(case.dtype in ("float32", "float64") for case in rehearsal())


def test_a_row() -> None:
    row = gpu.measure(CASE, gpu.Rehearsal(), rounds=2, sample=0)
    assert set(row["contenders"]) == {"torch.nn", "step", "persistent"}
    for entry in row["contenders"].values():
        assert entry["median"] > 0
        assert not entry["captured"]
    assert row["predicted_us_a_step"]["step"] > row["predicted_us_a_step"]["persistent"] > 0
    for path in gpu.PATHS:
        assert row["predicted_us_a_call"][path] > 3 * row["predicted_us_a_step"][path]
    assert row["chosen"] == ["persistent", "persistent"]
    line = gpu.line_of(row)
    assert line[0] == "gru training float32 T=3 B=2 I=4 H=5"
    assert line[-1] == "persistent"
    assert len(line) == len(gpu.HEADER)
    assert "-" not in line[1:]
    assert "RNNFAST_CUDA_PATH" not in os.environ


def test_a_path_that_cannot_run_is_skipped() -> None:
    large = GpuCase("lstm", "inference", "float64", 1, 1, 4, 1600)
    row = gpu.measure(large, gpu.Rehearsal(), rounds=2, sample=0)
    assert "no persistent path" in row["contenders"]["persistent"]["skipped"]
    assert gpu.line_of(row)[3] == "skipped"


def test_wrong_results_are_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    right = gpu.call_of

    def call_of(case: GpuCase, kind: str, device: torch.device, dtype: torch.dtype) -> gpu.Run:
        run = right(case, kind, device, dtype)
        return (lambda: [t * (1 + 1e-4) for t in run()]) if kind == "step" else run

    monkeypatch.setattr(gpu, "call_of", call_of)
    row = gpu.measure(CASE, gpu.Rehearsal(), rounds=2, sample=0)
    assert "bound" in row["contenders"]["step"]["wrong"]
    assert "median" not in row["contenders"]["step"]
    assert "median" in row["contenders"]["persistent"]


def test_what_the_plan_is_to_learn() -> None:
    def row(T: int, chosen: list[str], **milliseconds: float) -> dict[str, Any]:
        case = asdict(GpuCase("gru", "training", "float32", T, 2, 4, 5))
        entries = {name: {"median": value} for name, value in milliseconds.items()}
        contenders = {name: entries.get(name, {"skipped": "does not fit"}) for name in gpu.CONTENDERS}
        return {**case, "contenders": contenders, "chosen": chosen, "predicted_us_a_call": {"step": 8, "persistent": 2}}

    both = ["persistent", "persistent"]
    rows = [
        row(3, both, step=0.008, persistent=0.004),  # right
        row(4, both, step=0.016, persistent=0.064),  # wrong, fourfold
        row(5, ["step", "step"], step=0.008),  # no other path
        row(6, ["persistent", "step"], step=0.008, persistent=0.006),  # forward and BPTT take two
    ]
    assert gpu.verdict(rows) == [
        "step: measured 1.00 times the prediction, 1.00 to 2.00, 4 cases",
        "persistent: measured 3.00 times the prediction, 2.00 to 32.00, 3 cases",
        "the plan took the slower path in 1 of 2 cases where both run",
        "  4.00 times as long, gru training float32 T=4 B=2 I=4 H=5: persistent",
    ]
    assert gpu.verdict([]) == []


def test_what_a_graph_does_not_take_is_a_failure(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """Ours must be captured on a GPU; torch's need not."""
    monkeypatch.setattr(gpu, "rehearsal", lambda: [CASE])
    run = ["--rehearse", "--out", str(tmp_path / "gpu.json")]
    assert gpu.main(run) == 0
    monkeypatch.setattr(gpu.Rehearsal, "graphs", True)
    assert gpu.main(run) == 1
    assert "1 of 1 cases measured, 1 with a wrong result or an error" in capsys.readouterr().out


def test_the_script_finds_the_tests() -> None:
    """Those of the kernels and those of the modules, by what they import; nothing else of theirs needs a package."""
    script = (ROOT / "benchmarks/gpu_day.sh").read_text()
    pattern = re.findall(r"grep -lE '(.+)' tests/test_\*\.py", script)
    assert len(pattern) == 1
    files = (ROOT / "tests").glob("test_*.py")
    named = {path.name for path in files if re.search(pattern[0], path.read_text(), re.MULTILINE)}
    assert named == {"test_cuda.py", "test_cuda_modules.py", "test_cuda_options.py"}
    for name in (*named, "cuda_devices.py"):
        text = (ROOT / "tests" / name).read_text()
        assert "hypothesis" not in text
        assert not re.search(r"^from rnnfast import .*_emulator", text, re.MULTILINE), "not built on that day"


def test_the_chosen_tests_need_no_emulator(tmp_path: Path) -> None:
    """gpu_day's own choice, where the emulator is not built. Without a GPU this is what belongs to no device at all."""
    script = (ROOT / "benchmarks/gpu_day.sh").read_text()
    assert '&& echo "emulated or cpu" || echo "not emulated and not cpu")' in script
    (tmp_path / "blocked.py").write_text("import sys\nsys.modules['rnnfast._emulator'] = None\n")
    pattern = re.findall(r"grep -lE '(.+)' tests/test_\*\.py", script)[0]
    every = sorted((ROOT / "tests").glob("test_*.py"))
    files = [str(path) for path in every if re.search(pattern, path.read_text(), re.MULTILINE)]
    command = [sys.executable, "-m", "pytest", *files, "-q", "--noconftest", "-p", "no:cacheprovider", "-p", "blocked"]
    paths = os.pathsep.join([str(ROOT), str(tmp_path)])
    done = subprocess.run(
        [*command, "-m", "not full and not slow", "-k", "not emulated and not cpu"],
        cwd=ROOT, env=os.environ | {"PYTHONPATH": paths}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:]


def script_with(tmp_path: Path, **parts: str) -> subprocess.CompletedProcess[str]:
    """gpu_day.sh up to its parts, and then those: its own functions on commands of a moment."""
    text = (ROOT / "benchmarks/gpu_day.sh").read_text()
    head = text[: text.index('if [ -z "$rehearse" ]; then')].replace('cd "$(dirname "$0")/.."', f'cd "{tmp_path}"')
    tail = text[text.rindex('exit "$(status)"') :]
    script = head + "".join(f"part {name} {call}\n" for name, call in parts.items()) + tail
    return subprocess.run(
        ["bash", "-c", script, "gpu_day", "--rehearse", "--minutes", "2.5"], capture_output=True, text=True, check=False
    )


def test_the_status_tells_what_was_not_done(tmp_path: Path) -> None:
    assert script_with(tmp_path, one="20 true", two="20 true").returncode == 0
    assert script_with(tmp_path, one="20 true", two="20 false").returncode == 1
    slow = script_with(tmp_path, one="5 sleep 30", two="20 true")
    assert slow.returncode == 3
    assert "one: UNFINISHED" in slow.stdout
    assert "two: done" in slow.stdout
    late = script_with(tmp_path, one="20 true\nreserve=500", two="20 true\nreserve=0", three="20 true")
    assert late.returncode == 3, late.stdout
    assert "two: NOT RUN, no time left" in late.stdout
    assert "three: done" in late.stdout


def test_what_there_was_no_time_for(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert gpu.main(["--rehearse", "--seconds", "1e-3", "--out", str(tmp_path / "gpu.json")]) == 3
    output = capsys.readouterr().out
    count = len(rehearsal())
    assert output.count("no time left for: ") >= count - 1
    report = tmp_path / "gpu.json"
    if report.exists():
        assert len(json.loads(report.read_text())["unfinished"]) == count - 1


@NO_DEVICE
def test_without_a_device(capsys: pytest.CaptureFixture) -> None:
    assert gpu.main([]) == 2
    assert "no CUDA device" in capsys.readouterr().err


@NO_DEVICE
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--fast"], "expected --out DIR, --minutes N or --rehearse, got '--fast'"),
        (["--minutes", "soon"], "expected a number, got 'soon'"),
        ([], "NOT RUN: torch sees no CUDA device"),
    ],
)
def test_the_script_refuses(arguments: list[str], words: str, tmp_path: Path) -> None:
    command = [str(ROOT / "benchmarks/gpu_day.sh"), "--out", str(tmp_path), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 2
    assert words in done.stdout + done.stderr
