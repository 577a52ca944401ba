# SPDX-License-Identifier: Apache-2.0
"""examples/long_memory.py through its functions: the task, a tiny run, stopping and going on, what it leaves."""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

import rnnfast

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch, one_thread: None) -> Any:
    """The example's two files, imported as its script does."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    import long_memory

    return long_memory


TINY = {"hidden": 8, "batch": 4, "updates": 6, "evaluate_every": 2, "test_samples": 16}
FILES = ["T9-gru-norm-seed0.json", "T9-gru-norm-seed0.png", "T9-seed0.png"]


@pytest.fixture
def tiny(example: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The example with runs of a moment."""
    full = example.Settings

    def small(cell: str, length: int, clip: str, seed: int, **more: Any) -> Any:
        return full(cell, length, clip, seed, **TINY | more)

    monkeypatch.setattr(example, "plan", lambda args: [
        small(cell, length, clip, args.seed) for length in args.length for cell in args.cell for clip in args.clip
    ])  # fmt: skip
    return example


def test_the_task(example: Any) -> None:
    from adding_problem import adding_batch

    x, target = adding_batch(20, 5000, torch.Generator().manual_seed(0))
    numbers, marks = x.unbind(-1)
    assert x.shape == (20, 5000, 2)
    assert bool((marks.sum(0) == 2).all())
    assert bool(((marks == 0) | (marks == 1)).all())
    torch.testing.assert_close((numbers * marks).sum(0), target)
    assert torch.mean((target - 1) ** 2).item() == pytest.approx(example.BASELINE, rel=0.05)
    assert bool((marks.mean(1) - 0.1).abs().max() < 0.02), "steps are not marked alike"
    again, _ = adding_batch(20, 5000, torch.Generator().manual_seed(0))
    assert torch.equal(again, x)


@pytest.mark.parametrize("cell", ["tanh", "irnn", "gru", "lstm"])
@pytest.mark.parametrize("clip", ["none", "norm"])
def test_learns(example: Any, cell: str, clip: str) -> None:
    """Two marked of two steps: the sum of all numbers, which every cell learns in a moment."""
    settings = example.Settings(cell, 2, clip, hidden=16, batch=32, updates=300, learning_rate=0.01)
    run = example.Run(settings)
    before = run.evaluate()
    while not run.finished:
        run.advance()
    assert run.best() < 0.03 < before
    assert len(run.progress.loss) == len(run.progress.gradient_norm) == run.progress.update
    assert not run.progress.diverged


def test_a_loaded_run_goes_on_with_the_same_numbers(example: Any, tmp_path: Path) -> None:
    settings = example.Settings("lstm", 9, "norm", **TINY)
    whole, part = example.Run(settings), example.Run(settings)
    for _ in range(6):
        whole.advance()
    for _ in range(3):
        part.advance()
    part.save(tmp_path / "run.pt")
    part = example.Run.load(tmp_path / "run.pt")
    while not part.finished:
        part.advance()
    assert part.progress.loss == whole.progress.loss
    assert part.progress.test == whole.progress.test
    assert part.progress.gradient_norm == whole.progress.gradient_norm


def test_what_a_command_leaves(tiny: Any, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    command = ["--cell", "gru", "--length", "9", "--clip", "norm", "--no-flow", "--out", str(tmp_path / "out")]
    assert tiny.main(command) == 0
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == FILES
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].split() == ["T", "cell", "clipping", "best", "error", "solved", "after", "updates", "time"]
    assert printed[1].split()[:3] == ["9", "gru", "norm"]
    result = json.loads((tmp_path / "out" / FILES[0]).read_text())
    assert result["updates"] == 6
    assert len(result["loss"]) == len(result["gradient_norm"]) == 6
    assert [update for update, _ in result["test"]] == [2, 4, 6]
    assert result["settings"] == vars(tiny.Settings("gru", 9, "norm", **TINY))
    assert result["machine"]["rnnfast"] == rnnfast.__version__


def test_finished_runs_are_taken_from_their_json(tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = ["--cell", "gru", "--length", "9", "--clip", "norm", "--no-flow", "--out", str(tmp_path)]
    assert tiny.main(command) == 0
    with monkeypatch.context() as patch:
        patch.setattr(tiny, "train", lambda *_: pytest.fail("it ran again"))
        assert tiny.main(command) == 0
    ran = []
    train = tiny.train
    monkeypatch.setattr(tiny, "train", lambda run, *rest: ran.append(run.settings.cell) or train(run, *rest))
    assert tiny.main([*command, "--cell", "tanh"]) == 0
    assert ran == ["tanh"]
    kept = tiny.kept_results(tmp_path, 9, 0)
    assert [result["settings"]["cell"] for result in kept] == ["tanh", "gru"]


def test_interrupted_and_resumed(
    tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """Ctrl-C between updates: 130, nothing lost, and the same numbers as without it."""
    command = ["--cell", "irnn", "--length", "9", "--clip", "none", "--no-flow"]
    assert tiny.main([*command, "--out", str(tmp_path / "whole")]) == 0
    interrupts = []

    class Recorded(tiny.Interrupt):
        def __init__(self) -> None:
            super().__init__()
            interrupts.append(self)

    advance = tiny.Run.advance

    def ask(run: Any, peak: Any) -> None:
        advance(run, peak)
        interrupts[-1].asked = run.progress.update == 3

    with monkeypatch.context() as patch:
        patch.setattr(tiny, "Interrupt", Recorded)
        patch.setattr(tiny.Run, "advance", ask)
        assert tiny.main([*command, "--out", str(tmp_path / "part")]) == 130
    assert "The same command goes on" in capsys.readouterr().err
    assert [p.name for p in (tmp_path / "part").iterdir()] == ["T9-irnn-none-seed0.pt"]
    assert tiny.main([*command, "--out", str(tmp_path / "part")]) == 0
    name = "T9-irnn-none-seed0.json"
    whole, part = (json.loads((tmp_path / f / name).read_text()) for f in ("whole", "part"))
    for key in ("loss", "gradient_norm", "test", "updates"):
        assert part[key] == whole[key], key
    assert not (tmp_path / "part" / "T9-irnn-none-seed0.pt").exists()


def test_diverged(tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    """A loss that is not finite ends the run, is said, drawn, and leaves no NaN in the weights."""
    loss, runs = tiny.Run.loss, []

    def broken(run: Any, *batch: Any) -> torch.Tensor:
        runs.append(run)
        return loss(run, *batch) * (math.inf if run.progress.update == 3 else 1.0)

    monkeypatch.setattr(tiny.Run, "loss", broken)
    assert tiny.main(["--cell", "tanh", "--length", "9", "--clip", "none", "--no-flow", "--out", str(tmp_path)]) == 0
    assert "diverged" in capsys.readouterr().out
    result = json.loads((tmp_path / "T9-tanh-none-seed0.json").read_text())
    assert result["diverged"]
    assert result["updates"] == 4
    assert result["loss"][3] == "inf"
    assert all(w.isfinite().all() for w in runs[-1].model.parameters())


BAD: list[tuple[list[str], str]] = [
    (["--cell", "esn"], "invalid choice: 'esn'"),
    (["--length", "1"], "expected a whole number >= 2, got 1"),
    (["--length", "long"], "invalid whole_number value: 'long'"),
    (["--clip", "hard"], "invalid choice: 'hard'"),
    (["--updates", "0"], "expected a whole number >= 1, got 0"),
    (["--learning-rate", "-1"], "expected a positive number, got -1"),
    (["--learning-rate", "nan"], "expected a positive number, got nan"),
    (["--learning-rate", "fast"], "invalid positive_number value: 'fast'"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD, ids=str)
def test_bad_arguments(example: Any, arguments: list[str], message: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as stop:
        example.main(arguments)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def example_recipe(example: Any, cell: str, **changes: Any) -> Any:
    return dataclasses.replace(example.RECIPES[cell], **changes)


def test_bad_files(tiny: Any, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    command = ["--cell", "gru", "--length", "9", "--clip", "none", "--no-flow", "--out", str(tmp_path)]
    name = "T9-gru-none-seed0"
    for file, text in ((f"{name}.json", "{"), (f"{name}.json", "{}"), (f"{name}.pt", "no zip")):
        (tmp_path / file).write_text(text)
        assert tiny.main(command) == 2
        assert f"{file}: cannot be read" in capsys.readouterr().err
        (tmp_path / file).unlink()
    assert tiny.main(command) == 0
    recipe = example_recipe(tiny, "gru", learning_rate=0.5)
    with monkeypatch.context() as patch:
        patch.setitem(tiny.RECIPES, "gru", recipe)
        assert tiny.main(command) == 2
        assert "another recipe" in capsys.readouterr().err
    monkeypatch.setitem(TINY, "updates", 7)
    assert tiny.main(command) == 2
    assert "other settings (updates 6, not 7)" in capsys.readouterr().err
    assert tiny.main([*command[:-1], str(tmp_path / f"{name}.json" / "x")]) == 2
    assert "cannot be made" in capsys.readouterr().err


def test_plan_and_help(example: Any, capsys: pytest.CaptureFixture) -> None:
    def plan(*arguments: str) -> list[tuple[str, int, str]]:
        return [(s.cell, s.length, s.clip) for s in example.plan(example.parser().parse_args(arguments))]

    cells = ("tanh", "irnn", "gru", "lstm")
    assert plan("--quick") == [(cell, 150, clip) for cell in cells for clip in ("none", "norm", "bptt")]
    assert len(plan()) == 4 * 4 * 3
    assert plan("--cell", "irnn", "--length", "200", "--clip", "norm") == [("irnn", 200, "norm")]
    with pytest.raises(SystemExit) as stop:
        example.main(["--help"])
    assert stop.value.code == 0
    assert "examples:" in capsys.readouterr().out


def test_pictures_of_a_signal_that_vanishes_or_explodes(example: Any, tmp_path: Path) -> None:
    """Zeros, infinities and runs without a recording have no place on a log scale, and do no harm."""
    flow = {"start": {"words": "", "signal": [0.0, 1e-30, 1.0]}, "end": {"words": "", "signal": ["inf", 1e30, 1.0]}}
    results = []
    for cell, clip, recorded in (("tanh", "none", flow), ("tanh", "bptt", {}), ("irnn", "none", flow)):
        result = example.Run(example.Settings(cell, 3, clip if clip == "none" else "norm", **TINY)).result()
        result |= {"loss": [0.2, 0.1, "nan"], "gradient_norm": [1.0, 2.0, "inf"], "diverged": True, "updates": 3}
        results.append(result | {"gradient_flow": recorded, "test": [[2, "nan"]], "best_test_error": "inf"})
    example.draw_overview(tmp_path / "overview.png", results)
    example.draw_run(tmp_path / "run.png", results[0])
    assert all((tmp_path / name).stat().st_size > 1000 for name in ("overview.png", "run.png"))
    assert example.table(results).splitlines()[1].split() == ["3", "tanh", "none", "inf", "not", "solved", "3", "0:00",
                                                              "diverged"]  # fmt: skip


def test_the_largest_gradient_is_drawn(tiny: Any, tmp_path: Path) -> None:
    """The flow of an update whose gradient is far above all before it; the run's numbers are those without it."""
    plain, drawn = (tiny.Run(tiny.Settings("irnn", 9, "none", **TINY | {"learning_rate": 0.3})) for _ in range(2))
    for run, path in ((plain, None), (drawn, tmp_path / "peak.png")):
        for _ in range(6):
            run.advance(path)
    norms = drawn.progress.gradient_norm
    assert norms == plain.progress.gradient_norm
    assert max(norms) > 2 * norms[0], norms
    peak = drawn.progress.flow["peak"]
    assert 2 * peak["gradient_norm"] >= max(norms)
    assert peak["gradient_norm"] == pytest.approx(norms[peak["update"]], rel=1e-3)
    assert (tmp_path / "peak.png").stat().st_size > 1000
    assert "peak" not in plain.progress.flow


def test_another_learning_rate_is_another_run(tiny: Any) -> None:
    settings = tiny.Settings("irnn", 9, "none", learning_rate=1e-5)
    assert settings.name == "T9-irnn-none-rate1e-05-seed0"
    assert settings.group == "T9-rate1e-05-seed0"
    assert settings.recipe["learning_rate"] == 1e-5


def test_clipping_inside_bptt_and_gradient_flow(tiny: Any, tmp_path: Path) -> None:
    """The options and pictures of the kernels."""
    command = ["--cell", "tanh", "lstm", "--length", "9", "--clip", "bptt", "--out", str(tmp_path)]
    assert tiny.main(command) == 0
    for cell in ("tanh", "lstm"):
        result = json.loads((tmp_path / f"T9-{cell}-bptt-seed0.json").read_text())
        assert set(result["gradient_flow"]) >= {"start", "end"}
        for when, record in result["gradient_flow"].items():
            assert len(record["signal"]) == 9
            assert len(record.get("signal_c", [])) == (9 if cell == "lstm" else 0)
            assert "layer 0" in record["words"]
            assert (tmp_path / f"T9-{cell}-bptt-seed0-flow-{when}.png").stat().st_size > 1000
