# SPDX-License-Identifier: Apache-2.0
"""What the benchmark makes of its measurements: limits, rows, targets, tables, plots, page, README. No clock runs."""

import csv
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import limits, page, plots, readme_table, report, run, sweeps, targets
from benchmarks.cases import Case, all_cases
from benchmarks.limits import Limits
from benchmarks.report import Measured
from benchmarks.timing import Timing

ROOT = Path(__file__).resolve().parent.parent
LIMITS = Limits(2, 100.0, {32 * 1024: 200.0, 128 * 1024: 100.0, 1024 * 1024: 50.0})
FACTS = {
    "processor": "P", "cores": 2, "isa": "avx2", "torch": "2.13", "threads": 2, "onnxruntime": "1.2", "openvino": None,
    "caches": {"L2": "512K"},
}  # fmt: skip


def times(**medians: float) -> dict[str, Timing]:
    return {name: Timing(value, 0.9 * value, 1.1 * value, 15) for name, value in medians.items()}


def measured(cases: list[Case]) -> list[Measured]:
    """Ours 2 ms; torch 6, ONNX Runtime 3, OpenVINO 4 (failed with the first cell's streams); half of torch's memory."""
    found = []
    for case in cases:
        recurrence = 1e-5 if limits.measures_recurrence(case) else None
        if case.mode == "memory":
            memory = {"rnnfast": [2 << 20, 1 << 20, 3 << 20], "torch": [4 << 20] * 3}
            found.append(Measured(case, "rnnfast", memory=memory))
        elif case.mode == "recomputation":
            again = {"recomputation": [1 << 20], "rnnfast": [8 << 20], "torch": [20 << 20]}
            timings = times(recomputation=14.0, rnnfast=10.0)
            found.append(Measured(case, "recomputation", timings, memory=again))
        elif case.mode == "inference":
            timings = times(rnnfast=2.0, frozen=1.8, torch=6.0, onnxruntime=3.0, openvino=4.0)
            found.append(Measured(case, "rnnfast", timings, recurrence=recurrence))
        elif case.mode == "training":
            found.append(Measured(case, "rnnfast", times(rnnfast=2.0, torch=2.0 if case.directions == 2 else 6.0)))
        elif case.mode == "streaming":
            timings = times(stream=0.1, rnnfast=0.2, torch=3.0, torch_cell=0.5, onnxruntime=0.3)
            found.append(Measured(case, "stream", timings, {"openvino": "failed: ValueError: no"}))
        else:
            found.append(Measured(case, "rnnfast", times(rnnfast=0.06, rnnfast_cell=0.04, stream=0.01, torch_cell=0.1)))
    return found


def fake_document() -> dict[str, Any]:
    points = [
        {"along": "T", "value": t, "cell": "lstm", "T": t, "B": 1, "I": 4, "H": 4, "threads": 2,
         "ms": {"rnnfast": 1.0 * t, "torch": 2.0 * t}, "left_out": {}} for t in (4, 1, 16)
    ]  # fmt: skip
    found = run.Found(measured(all_cases(quick=True)), points, ["lstm inference 1,1,1,1: RuntimeError: bad <thing>"])
    return run.make_document(FACTS, LIMITS, None, found)


def test_bandwidth_between_the_sizes() -> None:
    assert LIMITS.bandwidth_at(1) == 200.0
    assert LIMITS.bandwidth_at(64 * 1024) == pytest.approx(150.0)  # half way in the logarithm
    assert LIMITS.bandwidth_at(128 * 1024) == pytest.approx(100.0)
    assert LIMITS.bandwidth_at(1 << 30) == 50.0
    assert Limits(2, 100.0, {}).bandwidth_at(5) is None


def test_limit_by_hand() -> None:
    case = Case("lstm", "inference", 100, 1, 128, 128)  # W_hh: 4*128*128*4 = 256 KB, 128 a thread: 100 GB/s
    assert LIMITS.step_seconds(case) == pytest.approx(2.62144e-6)
    assert LIMITS.of(case) == (pytest.approx(100 * 2.62144e-3), "bytes")
    step = Case("lstm", "streaming", 1, 1, 128, 128)  # W_ih too: 512 KB, 256 a thread, a third of the way to 1 MB
    assert LIMITS.of(step)[0] == pytest.approx(512 * 1024 / (100 - 50 / 3) * 1e-6)
    large = Case("lstm", "training", 64, 32, 256, 256)
    assert LIMITS.of(large) == (pytest.approx(3 * 2 * 64 * 32 * 1024 * 512 / 100e9 * 1e3), "flops")
    both = Case("gru", "inference", 100, 1, 64, 64, 2, 2)  # layers one after the other, directions side by side
    assert both.step_bytes == 2 * 3 * 64 * 64 * 4
    assert both.passes == 200
    assert Limits(2, 100.0, {}).of(case) == (pytest.approx(case.flops / 100e9 * 1e3), "flops")


def test_bandwidth_of_a_build_that_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    class Old:
        pass

    class New:
        asked: list[tuple[int, int]] = []  # noqa: RUF012

        def read_bandwidth(self, size: int, threads: int) -> float:
            self.asked.append((size, threads))
            return 1e6 / size + len(self.asked) % 3

    monkeypatch.setattr(limits, "_C", Old())
    found, reason = limits.measure_bandwidth(2)
    assert found == {}
    assert reason is not None
    assert "read bandwidth" in reason
    monkeypatch.setattr(limits, "_C", New())
    found, reason = limits.measure_bandwidth(3)
    assert reason is None
    assert tuple(found) == limits.SIZES
    assert found[32 * 1024] == pytest.approx(1e6 / 32768 + 2)  # the best of three
    assert {threads for _, threads in New.asked} == {3}


def test_better_limits() -> None:
    both = limits.better(Limits(2, 90.0, {1: 5.0, 2: 3.0}), Limits(2, 100.0, {1: 4.0, 2: 6.0}))
    assert (both.peak, both.bandwidth) == (100.0, {1: 5.0, 2: 6.0})


def test_recurrence_is_positive() -> None:
    case = Case("gru", "inference", 8, 1, 16, 16)
    assert limits.measures_recurrence(case)
    assert 0 < limits.recurrence_seconds(case, 0.0, 5) < 1
    assert not limits.measures_recurrence(Case("gru", "inference", 8, 2, 16, 16))
    assert not limits.measures_recurrence(Case("gru", "training", 8, 1, 16, 16))


def test_rows_by_hand() -> None:
    rows = fake_document()["rows"]
    first = rows[0]
    assert (first["cell"], first["mode"], first["T"], first["ours"]) == ("lstm", "inference", 100, "rnnfast")
    assert (first["ratio"], first["ratio_onnxruntime"], first["ratio_openvino"]) == (3.0, 1.5, 2.0)
    assert (first["best"], first["ratio_best"]) == ("onnxruntime", 1.5)
    assert first["gflops"] == pytest.approx(2 * 100 * 512 * 256 / 2e-3 * 1e-9)
    assert first["of_peak"] == pytest.approx(first["gflops"] / 100)
    assert first["of_limit"] == pytest.approx(0.262144 / 2)
    assert first["recurrence_gbs"] == pytest.approx(262144 / 1e-5 * 1e-9)
    assert first["of_bandwidth"] == pytest.approx(first["recurrence_gbs"] / 100)
    step = next(r for r in rows if r["mode"] == "streaming")
    assert (step["ratio"], step["best"]) == (30.0, "onnxruntime")
    seconds = LIMITS.step_seconds(Case("lstm", "streaming", 1, 1, 512, 512))
    assert seconds is not None
    assert step["budget_ms"] == pytest.approx(2e3 * seconds + 0.15 * 0.1)
    assert step["of_budget"] == pytest.approx(0.1 / step["budget_ms"])
    overhead = next(r for r in rows if r["mode"] == "overhead")
    assert [overhead[f"overhead_{n}"] for n in ("rnnfast", "rnnfast_cell", "stream")] == pytest.approx([0.6, 0.4, 0.1])
    kept = next(r for r in rows if r["mode"] == "memory")
    assert (kept["rnnfast_bytes"], kept["bytes_ratio"], kept["bytes_spread"]) == (2 << 20, 0.5, 2 << 20)
    again = next(r for r in rows if r["mode"] == "recomputation")
    assert (again["time_ratio"], again["bytes_ratio"]) == (pytest.approx(1.4), pytest.approx(0.05))
    assert (again["recomputation_low"], again["repeats"]) == (pytest.approx(12.6), 15)


def target(what: str) -> targets.Target:
    (found,) = [t for t in targets.TARGETS if t.what == what]
    return found


def test_a_target_met_in_another_way() -> None:
    each = target("inference, each, against the best rival")
    row = {"mode": "inference", "layers": 1, "directions": 1, "ratio_best": 0.9, "of_limit": 0.5}
    assert each.concerns(row, "avx2")
    assert not each.concerns({**row, "directions": 2}, "avx2")
    assert each.met(row) is False
    assert each.met({**row, "of_limit": 0.88}) is True
    assert each.met({**row, "ratio_best": 1.0}) is True
    assert each.met({**row, "ratio_best": None, "of_limit": 0.5}) is None
    assert target("memory of training, LSTM and GRU, of torch.nn's").reached_by(0.6)
    assert not target("memory of training, LSTM and GRU, of torch.nn's").reached_by(0.61)


@pytest.mark.parametrize(
    ("what", "measure", "most"),
    [("memory, of torch.nn's", "bytes_ratio", 0.05), ("time, of our own without", "time_ratio", 1.5)],
)
def test_targets_of_recomputation(what: str, measure: str, most: float) -> None:
    """Of the LSTM at T=20,000 alone."""
    asked = target(f"recomputation, LSTM, T=20,000: {what}")
    row = {"mode": "recomputation", "cell": "lstm", "T": 20000, measure: most}
    assert asked.concerns(row, "avx2")
    assert not asked.concerns({**row, "T": 1000}, "avx2")
    assert not asked.concerns({**row, "cell": "gru"}, "avx2")
    assert asked.met(row) is True
    assert asked.met({**row, measure: 1.01 * most}) is False


def test_targets_of_each_kind_of_machine() -> None:
    rows = fake_document()["rows"]
    wide = {o.what: o for o in targets.outcomes(rows, "avx512", report.label)}
    narrow = {o.what: o for o in targets.outcomes(rows, "avx2", report.label)}
    best = "inference, against the best rival"
    assert (wide[best].needed, narrow[best].needed) == ("ratio_best at least 1.3", "ratio_best at least 1.45")
    assert narrow[best].met  # 1.5 everywhere
    both = "2 layers, both directions, B=1, against torch.nn"
    assert narrow[both].met is False
    assert narrow[both].misses == ("lstm 100,1,256,256 2x2", "gru 100,1,256,256 2x2")
    assert narrow["2 layers, both directions, B=32, GRU, against torch.nn"].met is None
    assert len(wide) == len(narrow) == len({*wide})
    end = report.summary(list(narrow.values())).splitlines()[-1]
    assert re.fullmatch(r"\d+ of \d+ targets met; \d+ not measured in this run", end)


def test_geometric_means() -> None:
    assert targets.geometric_mean([1.0, 4.0]) == pytest.approx(2.0)
    found = {(m["mode"], m["directions"], m["cell"]): m for m in targets.means(fake_document()["rows"])}
    assert found["inference", 1, "lstm"]["ratio_best"] == pytest.approx(1.5)
    assert found["training", 1, None]["ratio"] == pytest.approx(3.0)
    assert found["training", 1, None]["ratio_openvino"] is None
    assert not any(mode == "memory" for mode, *_ in found)


def test_tables_fit_and_show_what_was_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    document = fake_document()
    run.print_report(document)
    text = capsys.readouterr().out
    tables = report.tables(document["rows"])
    assert tables in text
    assert max(map(len, tables.splitlines())) <= 120
    for word in (
        "OpenVINO left out of 3 cases: failed: ValueError: no",
        "FAILED: lstm inference 1,1,1,1",
        "short",
        "2x2",
    ):
        assert word in text
    assert "geometric mean 1.50 of 6" in text
    shown = [report.significant(v) for v in (0.01234, 0.1234, 1.234, 12.34, 123.4, 1234.5)]
    assert shown == ["0.0123", "0.123", "1.234", "12.34", "123.4", "1234"]


def test_written_report(tmp_path: Path) -> None:
    document = fake_document()
    report.write(tmp_path / "new", document)
    read = json.loads((tmp_path / "new/results.json").read_text())
    assert read["format"] == 2
    assert read["rows"] == document["rows"]
    with (tmp_path / "new/results.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [r["mode"] for r in lines] == [r["mode"] for r in document["rows"]]
    step = next(r for r in lines if r["mode"] == "streaming")
    assert step["left_out"] == "openvino: failed: ValueError: no"
    assert float(step["ratio_torch_cell"]) == pytest.approx(5.0)


def test_page_is_whole_and_escaped(tmp_path: Path) -> None:
    document = fake_document()
    png = tmp_path / "a<b.png"
    png.write_bytes(b"\x89PNG")
    page.write(tmp_path / "report.html", document, [png])
    text = (tmp_path / "report.html").read_text()
    assert "src='data:image/png;base64,iVBORw==" in text
    assert "a&lt;b" in text
    assert "bad &lt;thing&gt;" in text
    assert not re.search(r"(src|href)='?(http|/|file)", text)
    for word in ("100,1,128,128", "ONNX Runtime 1.2", "read bandwidth", "FMA peak", "not measured", "missed"):
        assert word in text


def test_plots(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    found = plots.draw(fake_document(), tmp_path)
    assert [path.name for path in found] == [
        "roofline.png", "ratios-inference.png", "ratios-training.png", "ratios-streaming.png", "sweeps-lstm.png",
    ]  # fmt: skip
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in found)


def test_plots_without_matplotlib(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    run.write(tmp_path, fake_document(), True)
    assert "note: no plots: " in capsys.readouterr().out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.html", "results.csv", "results.json"]


def test_sweep_points() -> None:
    points = sweeps.points("gru", 3, quick=False)
    assert {p.along for p in points} == {"T", "B", "H", "threads"}
    assert [p.value for p in points if p.along == "threads"][:3] == [1, 2, 3]
    assert all(p.case.I == p.case.H == p.value for p in points if p.along == "H")
    assert all(p.value == p.case.T and p.case.B == 16 for p in points if p.along == "T")
    curves = list(sweeps.grouped(fake_document()["sweeps"], "lstm"))
    assert [(along, same, [p["value"] for p in found]) for along, same, found in curves] == [
        ("T", "B=1, H=4, threads=2", [1, 4, 16])
    ]


MARKED = "a\n<!-- ratios -->\nold\n<!-- end of ratios -->\nb\n<!-- memory -->\nold\n<!-- end of memory -->\nc\n"


def test_readme_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    readme = tmp_path / "README.md"
    training = tmp_path / "training.md"
    monkeypatch.setattr(readme_table, "README", readme)
    monkeypatch.setattr(readme_table, "TRAINING", training)
    monkeypatch.setattr(readme_table, "KEPT", tmp_path)
    for folder in ("zen", "local"):  # one's own is not kept
        report.write(tmp_path / folder, fake_document())
    readme.write_text(MARKED)
    training.write_text(
        "".join(f"a\n<!-- {n} -->\nold\n<!-- end of {n} -->\nb\n" for n in ("recomputation", "control"))
    )
    ratios = {"plain_ms": 2.0, "value": 1.014, "norm": 1.05, "steps": 0.99, "record": 1.2, "again": 0.996}
    row = {"cell": "gru", "T": 64, "B": 32, "I": 256, "H": 256, **ratios}
    costs = {"machine": fake_document()["machine"], "threads": 2, "rows": [row]}
    (tmp_path / "zen/control.json").write_text(json.dumps(costs))
    assert readme_table.main([]) == 0
    text = readme.read_text()
    assert "old" not in text
    assert "local" not in text
    lines = text.splitlines()
    assert "### zen" in lines
    assert "| T, B, I, H | LSTM | training | of limit | GRU | training | of limit |" in text
    row = next(line for line in lines if line.startswith("| 100, 1, 128, 128 |"))
    assert row.startswith("| 100, 1, 128, 128 | 3.00 / 1.50 / 2.00 | 3.00 | 13%, ")
    assert any(line.startswith("| 1, 1, 512, 512 | 30.00 / 3.00 / - |  | ") for line in lines)
    assert "| 64, 32, 256, 256 | 2.0 / 4.0 = 0.50 | 2.0 / 4.0 = 0.50 | 2.0 / 4.0 = 0.50 |" in lines
    assert readme_table.main([str(tmp_path / "zen/results.json")]) == 0
    assert readme.read_text() == text  # again: the same
    again = training.read_text()
    assert "| LSTM | 1000, 16, 256, 256 | 14 / 10 = 1.40 | 1.0 / 8.0 / 20.0 | 0.050 |" in again.splitlines()
    assert "| GRU | 64, 32, 256, 256 | 2.00 | 1.01 | 1.05 | 0.99 | 1.20 | 1.00 |" in again.splitlines()
    assert "old" not in again
    readme.write_text("a\n<!-- ratios -->\n<!-- end of ratios -->\n")
    assert readme_table.main([]) == 2
    assert "<!-- memory -->" in capsys.readouterr().err


@pytest.mark.parametrize("path", readme_table.kept(), ids=lambda p: p.parent.name)
def test_kept_reports_can_be_shown(path: Path) -> None:
    """Of either format; the first one has neither cells nor memory. Recomputation has a report of its own."""
    found = json.loads(path.read_text())
    if {row["mode"] for row in found["rows"]} == {"recomputation"}:
        assert "| LSTM | 20000, 16, 256, 256 |" in readme_table.recomputation(found)
        return
    text = readme_table.speed(found)
    assert "| T, B, I, H | LSTM | training | of " in text
    assert "| 64, 32, 512, 512 |" in text
    assert ("An older report" in text) == ("format" not in found)
