# SPDX-License-Identifier: Apache-2.0
"""What the backward kernels record, against the NumPy reference and against hooks on every step of a loop."""

import dataclasses
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import rnnfast
from rnnfast import _C
from rnnfast.diagnostics import gradient_flow
from rnnfast.diagnostics.flow import _course
from rnnfast.ops import LAYERS
from tests import controlled
from tests.cases import CELLS, Case
from tests.helpers import ISAS, machine
from tests.problem import Problem, problem
from tests.reference import Control
from tests.test_bptt import codes, loop, reference

pytestmark = pytest.mark.usefixtures("one_thread")
CONTROLS = [Control(), Control("value", 0.05), Control("norm", 0.5, 3)]


def recorded(p: Problem, control: Control, every: int = 0) -> Tensor:
    """[D, T, columns] of one backward pass."""
    recorder = _C.open_recorder()
    limit, bptt = codes(control, recorder=recorder)
    bptt[2] = every

    def layer(x: Tensor, h0: Tensor | None, c0: Tensor | None, weights: list[Tensor]) -> Any:
        options = (p.sizes, p.case.bias, p.case.bidirectional, False, limit, bptt)
        return LAYERS[p.case.cell](x, h0, c0, weights, *options)[:3]

    p.run(layer)
    ((index, flow),) = _C.recorded(recorder)
    assert index == 0
    _C.close_recorder(recorder)
    assert _C.recorded(recorder) == []
    return flow


def by_steps(p: Problem, norms: np.ndarray) -> np.ndarray:
    """[D, N, 2] norms of rows -> [D, T, 4]: mean and maximum over the batch, of dh and of dc."""
    parts = np.split(norms, np.cumsum(p.batch_sizes)[:-1], axis=1)
    columns = [[part[..., i].mean(1), part[..., i].max(1)] for part in parts for i in (0, 1)]
    steps = [np.stack([*columns[2 * t], *columns[2 * t + 1]], axis=-1) for t in range(len(parts))]
    return np.stack(steps, axis=1)


def nothing_seen(p: Problem) -> controlled.Seen:
    return controlled.Seen(*(torch.zeros(p.case.D, sum(p.batch_sizes), 2, dtype=torch.float64) for _ in range(2)))


CASES = [
    Case(cell, 11, 4, 5, 19, dtype=dtype, bidirectional=both, packed=packed, c0=cell == "lstm", proj=proj)
    for cell, proj in [*((cell, 0) for cell in CELLS), ("lstm", 9)]
    for dtype, both, packed in (("float32", True, True), ("float64", True, False), ("bfloat16", False, False))
]


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("control", CONTROLS, ids=str)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_norms_are_those_of_reference_and_hooks(case: Case, control: Control, isa: str) -> None:
    p = problem(case)
    _, norms = reference(p, control)
    expected = by_steps(p, norms)
    tolerance = {"float32": 2e-5, "float64": 1e-11, "bfloat16": 2e-5}[case.dtype]
    for threads, every in ((1, 0), (2, 0), (2, 4)):
        with machine(isa, threads):
            got = recorded(p, control, every).numpy()
        np.testing.assert_allclose(got[..., :4], expected, rtol=tolerance, atol=tolerance, err_msg=f"{p.where}, {isa}")
    if case.dtype == "bfloat16":
        return  # the loop would round at every step
    seen = nothing_seen(p)
    p.run(loop(p, control, seen))
    np.testing.assert_allclose(by_steps(p, seen.norms.numpy()), expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("case", CASES[1::3], ids=str)
def test_what_was_limited(case: Case, packed: bool, isa: str) -> None:
    """float64, so that the count is exact: of elements by value, of samples by norm."""
    case = dataclasses.replace(case, packed=packed)
    p = problem(case)
    for control in (Control("value", 0.05), Control("norm", 4.0)):
        seen = nothing_seen(p)
        p.run(loop(p, control, seen))
        signals = [case.P, case.H][: 1 + case.has_cell] if control.clip == "value" else [1, 1][: 1 + case.has_cell]
        parts = (seen.beyond.sum(-1) / sum(signals)).split(p.batch_sizes, 1)
        fractions = torch.stack([part.mean(1) for part in parts], 1)
        for threads in (1, 2):
            with machine(isa, threads):
                got = recorded(p, control)[..., 4]
            torch.testing.assert_close(got, fractions, rtol=1e-12, atol=1e-12, msg=lambda m, c=control: f"{c}: {m}")
        assert 0 < float(fractions.mean()) < 1


@pytest.mark.parametrize("kind", ["tanh", "relu", "sigmoid", "LSTM", "GRU"])
def test_saturation(kind: str) -> None:
    """Counted of what the forward pass returns or saves, which the NumPy reference has proven."""
    torch.manual_seed(0)
    gated = kind in ("LSTM", "GRU")
    options = {} if gated else {"nonlinearity": kind}
    module = getattr(rnnfast, kind if gated else "RNN")(3, 6, dtype=torch.float64, **options)
    for p in module.parameters():
        p.data.mul_(4)
    x = torch.randn(5, 4, 3, dtype=torch.float64)
    with gradient_flow(module) as flow:
        y, _ = module(x)
        y.sum().backward()
    gates = flow.saturated_gates
    if not gated:
        v = y.detach()
        beyond = {"tanh": v.abs() > 0.9, "relu": v == 0, "sigmoid": (v < 0.1) | (v > 0.9)}[kind]
        expected = {"activation": beyond.double().mean((1, 2))}
    else:
        count = 4 if kind == "LSTM" else 3
        op = LAYERS[kind.lower()]
        saved = op(x, None, None, list(module.parameters()), None, True, False, True)[3].detach().view(5, 4, 4, 6)
        names = list(gates)
        expected = {}
        for g in range(count):
            v = saved[:, :, g]
            tanh = g == 2
            expected[names[g]] = ((v.abs() > 0.9) if tanh else (v < 0.1) | (v > 0.9)).double().mean((1, 2))
    assert gates.keys() == expected.keys()
    for name, want in expected.items():
        assert 0 < float(want.mean()) < 1
        torch.testing.assert_close(gates[name][0, 0], want)
    torch.testing.assert_close(flow.saturated[0, 0], torch.stack(list(expected.values())).mean(0))


def test_a_stack() -> None:
    """Each layer at its place; outside of the block nothing is recorded, and the gradients are the same bits."""
    torch.manual_seed(0)
    module = rnnfast.LSTM(3, 5, num_layers=3, bidirectional=True)
    x = torch.randn(7, 4, 3)

    def gradients() -> list[Tensor]:
        module.zero_grad()
        module(x)[0].square().sum().backward()
        return [p.grad.clone() for p in module.parameters()]

    before = gradients()
    with gradient_flow(module) as flow:
        with pytest.raises(RuntimeError, match="nothing is recorded yet"):
            flow.dh  # noqa: B018
        during = gradients()
        assert flow.dh.shape == flow.dc.shape == flow.clipped.shape == flow.saturated.shape == (3, 2, 7)
        first = flow.dh.clone()
    after = gradients()
    for a, b, c in zip(before, during, after, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)
        assert torch.equal(a, c)
    assert torch.equal(flow.dh, first)
    assert bool((flow.dh_max >= flow.dh).all())
    assert bool((flow.dc_max >= flow.dc).all())
    assert "_recorder" not in module.__dict__
    assert not bool(flow.clipped.any())
    with pytest.raises(RuntimeError, match="has begun before"):
        flow.__enter__()


def test_lower_layers_may_be_frozen() -> None:
    module = rnnfast.GRU(3, 5, num_layers=2)
    for name, p in module.named_parameters():
        p.requires_grad_("_l1" in name)
    with gradient_flow(module) as flow:
        module(torch.randn(7, 4, 3))[0].sum().backward()
    assert bool(torch.isnan(flow.dh[0]).all())
    assert bool(torch.isfinite(flow.dh[1]).all())
    assert "layer 0: no backward pass" in flow.summary()


class Writer:
    """A SummaryWriter's add_scalar."""

    def __init__(self) -> None:
        self.logged: dict[str, tuple[float, int]] = {}

    def add_scalar(self, tag: str, value: float, step: int) -> None:
        self.logged[tag] = (value, step)


def test_what_is_not_finite_is_seen() -> None:
    module = rnnfast.GRU(3, 5)
    y, _ = module(torch.randn(7, 2, 3))
    grad = torch.ones_like(y)
    grad[:, 0] = float("nan")  # the first sample; the second is finite
    with gradient_flow(module) as flow:
        y, _ = module(torch.randn(7, 2, 3))
        y.backward(grad)
    assert bool(torch.isnan(flow.dh_max).all())
    assert flow.reached == [True]
    assert flow.summary().startswith("layer 0: not finite after 0 steps")


def test_other_modules_are_refused() -> None:
    model = nn.Sequential(nn.Linear(3, 3), rnnfast.GRU(3, 4))
    with pytest.raises(TypeError, match="expected an rnnfast.RNN, LSTM or GRU, got Sequential; it contains 1"):
        gradient_flow(model)  # type: ignore[arg-type]
    for theirs in (nn.LSTM(3, 4), nn.Sequential(nn.LSTM(3, 4))):
        with pytest.raises(TypeError, match="torch.nn's layers do not record: .* accelerate it with replace=True"):
            gradient_flow(theirs)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("signal", "words"),
    [
        ([1.0, 0.5, 1e-7], "vanishes: 1e-07 of the signal is left after 2 steps"),
        ([1.0, 1e-3, 0.0], "vanishes: nothing of the signal is left after 2 steps"),
        ([1.0, 10.0, 5e4], "explodes: the signal is 5e+04 times as large after 2 steps"),
        ([0.0, 1.0, 0.5], "is kept: 0.5 of the signal is left after 1 steps"),
        ([1.0, 20.0, 5.0], "is kept: the signal is 5 times as large after 2 steps"),
        ([0.0, 0.0], "no signal arrives"),
        ([1.0, float("inf")], "not finite after 1 steps"),
        ([2.0], "the signal is 2.0e+00 at its one step"),
        ([float("nan")] * 3, "not finite after 0 steps"),
    ],
)
def test_words(signal: list[float], words: str) -> None:
    injected = torch.zeros(len(signal))
    assert _course(torch.tensor(signal, dtype=torch.float64), injected) == words
    injected[next((i for i, v in enumerate(signal) if v > 0), 0)] = 1  # where it begins
    assert _course(torch.tensor(signal, dtype=torch.float64), injected) == words


@pytest.mark.parametrize(
    ("signal", "words"),
    [
        ([1.0, 0.5, 1e-7], "vanishes: 1e-07 of the signal is left after 2 steps, at 1 of which more joins it"),
        ([1.0, 10.0, 5e4], "explodes: the signal is 5e+04 times as large after 2 steps, at 1 of which more joins it"),
        ([1.0, 0.5, 0.9], "the signal is 0.9 times as large after 2 steps, at 1 of which more joins it"),
    ],
)
def test_words_where_more_joins(signal: list[float], words: str) -> None:
    assert _course(torch.tensor(signal, dtype=torch.float64), torch.tensor([1.0, 0.25, 0.0])) == words


def test_words_where_it_dies_twice() -> None:
    signal = torch.tensor([1.0, 0.5, 0.0, 0.0, 1.0, 0.5, 0.0, 0.0])
    injected = torch.tensor([1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0])
    words = "vanishes: nothing of the signal is left after 6 steps"
    assert _course(signal, injected) == f"{words}, at 1 of which more joins it"


@pytest.mark.parametrize("every", [None, 3])
@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
def test_where_gradient_comes_in(kind: str, every: int | None) -> None:
    """Of outputs, of final states, of each direction by itself; with lengths 7, 4, 4, 2."""
    module = getattr(rnnfast, kind)(3, 5, bidirectional=True, checkpoint_every=every)

    def injected(loss: Any, packed: bool) -> Tensor:
        x: Any = torch.randn(7, 4, 3)
        if packed:
            x = nn.utils.rnn.pack_padded_sequence(x, torch.tensor([7, 4, 4, 2]))
        with gradient_flow(module) as flow:
            loss(*module(x)).backward()
        return flow.injected[0]

    def final(_: Any, state: Any) -> Tensor:
        return (state[-1] if kind == "LSTM" else state).sum()

    some = torch.zeros(2, 7, dtype=torch.float64)
    some[0, 2], some[1, 6] = 0.25, 1.0
    torch.testing.assert_close(injected(lambda y, _: y[2, 0, :5].sum() + y[6, :, 5:].sum(), False), some)
    ends = torch.zeros(2, 7, dtype=torch.float64)
    ends[0, 6] = ends[1, 0] = 1.0
    torch.testing.assert_close(injected(final, False), ends)
    ends[0] = torch.tensor([0, 1 / 4, 0, 2 / 3, 0, 0, 1])  # of the samples that have the step
    torch.testing.assert_close(injected(final, True), ends)
    assert bool((injected(lambda y, _: y.data.sum(), True) == 1).all())


def test_summary_of_a_cell_state_that_remembers() -> None:
    """An LSTM whose forget gates are open: what its dL/dh loses its dL/dc keeps. Both are told."""
    torch.manual_seed(0)
    module = rnnfast.LSTM(3, 20, init=("forget_bias", 20.0))
    with gradient_flow(module) as flow:
        module(torch.randn(61, 4, 3))[0][-1].sum().backward()
    h, c = flow.dh[0, 0], flow.dc[0, 0]
    assert flow.summary().startswith(
        f"layer 0: dL/dh is kept: {float(h[0] / h[-1]):.2g} of the signal is left after 60 steps; "
        f"dL/dc is kept: the signal is {float(c[0] / c[-1]):.2g} times as large after 60 steps; "
    )
    with gradient_flow(module) as flow:
        module(torch.randn(61, 4, 3))[0].sum().backward()
    assert "after 60 steps, at 60 of which more joins it; dL/dc " in flow.summary()


def test_summary_of_a_network_that_forgets() -> None:
    torch.manual_seed(0)
    module = rnnfast.RNN(3, 20, bidirectional=True, bptt_clip=("norm", 0.1))
    with gradient_flow(module) as flow:
        y, _ = module(torch.randn(61, 4, 3))
        (y[-1, :, :20].sum() + y[0, :, 20:].sum()).backward()
    forward, reverse = flow.summary().split("\n")
    for line, name in ((forward, "layer 0"), (reverse, "layer 0, reverse")):
        assert line.startswith(f"{name}: vanishes: ")
        assert "of the signal is left after 60 steps; bptt_clip limited " in line
        assert line.endswith("of the gates are saturated")


def test_plot_and_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = rnnfast.LSTM(3, 5, num_layers=2, bptt_clip=("norm", 0.01))
    with gradient_flow(module) as flow:
        module(torch.randn(9, 4, 3))[0].sum().backward()
    pytest.importorskip("matplotlib")
    figure = flow.plot(tmp_path / "flow.png")
    assert (tmp_path / "flow.png").stat().st_size > 1000
    titles = [axis.get_title() for axis in figure.axes if axis.get_title()]
    norm = "log10 of the mean norm of"
    assert titles == [f"{norm} dL/dh", f"{norm} dL/dc", "saturated", "limited by bptt_clip"]
    writer = Writer()
    logged = writer.logged
    flow.log(writer, 12)
    assert len(logged) == 2 * 6
    assert logged["gradient_flow/layer_1/dh_last_step"] == (float(flow.dh[1, 0, -1]), 12)
    assert logged["gradient_flow/layer_0/dc_first_step"] == (float(flow.dc[0, 0, 0]), 12)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match="rnnfast\\[demo\\]"):
        flow.plot()
