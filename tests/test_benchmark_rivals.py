# SPDX-License-Identifier: Apache-2.0
"""The benchmark's contenders: each computes what torch.nn does, and what does not is never timed."""

import sys
from dataclasses import replace

import pytest
import torch
from torch import nn

import rnnfast
from benchmarks import rivals, runtimes, timing
from benchmarks.cases import MEASURED, Case

ONES = {mode: Case("lstm", mode, 1 if mode in ("streaming", "overhead") else 5, 1, 6, 7) for mode in rivals._OURS}


def needs(*names: str) -> None:
    missing = [name for name in names if runtimes.versions()[name] is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} not installed: pip install 'rnnfast[bench]'")


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("stack", [(1, 1), (2, 2), (2, 1), (1, 2)], ids=str)
@pytest.mark.parametrize("cell", MEASURED)
def test_onnx_graph_is_torchs_module(cell: str, stack: tuple[int, int], runtime: str) -> None:
    """Outputs and final states, without and with given states; the second call as the first."""
    needs("onnx", runtime)
    for case in (Case(cell, "inference", 4, 3, 5, 8, *stack), Case(cell, "streaming", 1, 2, 5, 8, *stack)):
        x, grad = rivals.data(case)
        reference = rivals.module(case, "torch")
        expected = rivals.call(case, reference, x, grad)()
        run, results = getattr(runtimes, runtime)(case, reference, x, rivals.state(case), 2)
        for _ in range(2):
            run()
            for mine, theirs in zip(results(), expected, strict=True):
                torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_runtimes_keep_their_inputs_alive(runtime: str) -> None:
    """What is bound must outlive the call that bound it: sizes at which freed memory is given back or used again."""
    needs("onnx", runtime)
    case = Case("lstm", "streaming", 1, 1, 512, 512)
    found, left_out = rivals.verified(case, 2, (runtime,))
    assert not left_out
    filler = [torch.full((1, 1, 512), 7.0) for _ in range(100)]
    expected = rivals.call(case, rivals.module(case, "torch"), *rivals.data(case))()
    torch.testing.assert_close(found[runtime].results()[1], expected[1], rtol=1e-4, atol=1e-5)
    del filler


@pytest.mark.parametrize("mode", sorted(ONES))
@pytest.mark.parametrize("cell", MEASURED)
def test_every_contender_of_ours_is_verified(cell: str, mode: str) -> None:
    found, left_out = rivals.verified(replace(ONES[mode], cell=cell), 2, ("torch",))
    assert list(found) == rivals.contenders(mode, ("torch",))
    assert not left_out
    assert rivals.ours(mode) in found


def test_contenders_by_what_is_asked_for() -> None:
    assert rivals.contenders("inference") == ["rnnfast", "frozen", "torch", "onnxruntime", "openvino"]
    assert rivals.contenders("training") == ["rnnfast", "torch"]
    assert rivals.contenders("streaming", ("openvino",)) == [rivals.stepper(), "rnnfast", "openvino"]
    assert rivals.contenders("overhead", ()) == ["rnnfast", "rnnfast_cell", rivals.stepper()]


class FakeStream:
    """Stands for rnnfast.Stream: one step with its state inside."""

    def __init__(self, module: nn.Module, batch_size: int = 1) -> None:
        self.module, self.state = module, None

    def __call__(self, x: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            y, self.state = self.module(x[None], self.state)
        return out.copy_(y[0])


def test_stream_is_used_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rnnfast, "Stream", FakeStream, raising=False)
    assert rivals.ours("streaming") == "stream"
    for cell in MEASURED:
        found, _ = rivals.verified(replace(ONES["streaming"], cell=cell), 2, ("torch",))
        assert list(found) == ["stream", "rnnfast", "torch", "torch_cell"]
        found["stream"].run()


def spoil(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """One contender's weights become wrong."""
    made = rivals._make

    def spoilt(which: str, case: Case, *rest: object) -> rivals.Contender:
        contender = made("torch" if which == name else which, case, *rest)
        if which != name:
            return contender
        return rivals.Contender(contender.run, lambda: [result + 0.01 for result in contender.results()])

    monkeypatch.setattr(rivals, "_make", spoilt)


@pytest.mark.parametrize("name", ["rnnfast", "frozen"])
def test_ours_that_disagree_are_not_timed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case("lstm", "inference", 3, 2, 4, 5)
    spoil(monkeypatch, name)
    with pytest.raises(rivals.Disagreement, match=f"lstm inference 3,2,4,5: {name} and torch.nn disagree by"):
        rivals.verified(case, 2, ("torch",))


def test_gradients_that_disagree_are_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    called = rivals.call

    def spoilt(case: Case, module: nn.Module, *rest: torch.Tensor) -> object:
        run = called(case, module, *rest)
        ours = isinstance(module, rnnfast.LSTM)
        return lambda: [*(results := run())[:-1], results[-1] * (1.001 if ours else 1.0)]

    monkeypatch.setattr(rivals, "call", spoilt)
    with pytest.raises(rivals.Disagreement, match="in result 7"):
        rivals.verified(Case("lstm", "training", 3, 2, 4, 5), 2, ("torch",))


def test_rivals_are_never_dropped_silently(monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case("lstm", "inference", 3, 2, 4, 5)

    def broken(*_: object) -> None:
        raise ValueError("no such operator\nand more")

    monkeypatch.setattr(runtimes, "openvino", broken)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)  # what makes an import fail
    found, left_out = rivals.verified(case)
    assert list(found) == ["rnnfast", "frozen", "torch"]
    assert left_out["openvino"] == "failed: ValueError: no such operator"
    assert "not installed" in left_out["onnxruntime"]
    assert "rnnfast[bench]" in left_out["onnxruntime"]
    monkeypatch.undo()
    spoil(monkeypatch, "openvino")
    assert rivals.verified(case)[1]["openvino"].startswith("disagrees with torch.nn by")


def test_race_takes_turns() -> None:
    """Long enough calls that a turn is one: A B, B A, ...; and as many samples as rounds."""
    calls: list[str] = []
    contenders = {name: (lambda name=name: (calls.append(name), torch.rand(1))) for name in "ab"}
    timings = timing.race(contenders, 0.0, 3)
    assert set(timings) == {"a", "b"}
    turns = [name for i, name in enumerate(calls) if i == 0 or calls[i - 1] != name]
    assert turns == ["a", "b", "a", "b", "a", "b"]  # warming up; then a b, b a, a b
    assert all(t.low <= t.median <= t.high and t.repeats >= 3 for t in timings.values())


def test_summary_by_hand() -> None:
    assert timing.summary([0.001, 0.002, 0.003, 0.004, 0.005]) == timing.Timing(3.0, 2.0, 4.0, 5)
