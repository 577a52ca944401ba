# SPDX-License-Identifier: Apache-2.0
"""torch.compile(fullgraph=True) and torch.export: no graph breaks, no recompilation for each T and B."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters

import rnnfast
from tests.torchs import flat, state_of

pytestmark = pytest.mark.usefixtures("one_thread")
SIZES = [(4, 3), (6, 2), (7, 5), (3, 3), (9, 4), (5, 6)]  # T, B

MODULES: dict[str, tuple[str, dict[str, Any]]] = {
    "tanh": ("RNN", {}),
    "relu": ("RNN", {"nonlinearity": "relu", "bidirectional": True}),
    "sigmoid": ("RNN", {"nonlinearity": "sigmoid", "bias": False}),
    "lstm": ("LSTM", {"num_layers": 2, "bidirectional": True}),
    "projected": ("LSTM", {"proj_size": 3, "batch_first": True}),
    "gru": ("GRU", {"num_layers": 2, "batch_first": True}),
    "tanh cell": ("RNNCell", {}),
    "lstm cell": ("LSTMCell", {}),
    "gru cell": ("GRUCell", {"bias": False}),
}


@pytest.fixture(autouse=True)
def fresh_dynamo() -> Iterator[None]:
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


class Model(nn.Module):
    """A recurrent module between other layers."""

    def __init__(self, name: str, options: dict) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Linear(5, 5)
        self.rnn = getattr(rnnfast, name)(5, 8, **options)
        self.is_cell = name.endswith("Cell")

    def forward(self, x: torch.Tensor, hx: Any = None) -> Any:
        out = self.rnn(self.first(x), hx)
        return torch.tanh(flat_first(out)), out


def flat_first(out: Any) -> torch.Tensor:
    return out[0] if isinstance(out, tuple) else out


def inputs(model: Model, steps: int, batch: int) -> tuple[torch.Tensor, Any]:
    first = getattr(model.rnn, "batch_first", False)
    shape = (batch, 5) if model.is_cell else (batch, steps, 5) if first else (steps, batch, 5)
    gen = torch.Generator().manual_seed(steps)
    return torch.randn(shape, generator=gen), state_of(model.rnn, batch)


def results(model: Any, parameters: list, x: torch.Tensor, hx: Any) -> list[torch.Tensor]:
    """Outputs and, under autograd, every gradient."""
    outputs = flat(model(x, hx))
    if not torch.is_grad_enabled():
        return outputs
    return [*outputs, *torch.autograd.grad(sum(t.square().sum() for t in outputs), parameters)]


@pytest.mark.parametrize("training", [True, False], ids=["training", "inference"])
@pytest.mark.parametrize("kind", MODULES)
def test_whole_graph_for_all_sizes(kind: str, training: bool) -> None:
    """One graph for the first sizes, one for all others; no breaks; with and without states."""
    model = Model(*MODULES[kind]).train(training)
    parameters = list(model.parameters())
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    for with_state in (False, True):
        torch._dynamo.reset()
        counters.clear()
        with torch.set_grad_enabled(training):
            for steps, batch in SIZES:
                x, hx = inputs(model, steps, batch)
                hx = hx if with_state else None
                got, want = (results(m, parameters, x, hx) for m in (compiled, model))
                torch.testing.assert_close(got, want)
        assert not counters["graph_break"], dict(counters["graph_break"])
        assert counters["stats"]["unique_graphs"] == 2, "a graph for each size"


@pytest.mark.parametrize("name", ["RNN", "LSTM", "GRU"])
def test_marked_dynamic_compiles_once(name: str) -> None:
    model = Model(name, {"dropout": 0.3, "num_layers": 2}).eval()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    for steps, batch in SIZES:
        x, _ = inputs(model, steps, batch)
        torch._dynamo.mark_dynamic(x, 0)
        torch._dynamo.mark_dynamic(x, 1)
        torch.testing.assert_close(flat(compiled(x)), flat(model(x)))
    assert counters["stats"]["unique_graphs"] == 1


@pytest.mark.parametrize("name", ["RNN", "LSTM", "GRU", "RNNCell", "LSTMCell", "GRUCell"])
def test_explain_counts_no_breaks(name: str) -> None:
    model = Model(name, {})
    found = torch._dynamo.explain(model)(*inputs(model, 4, 3))
    assert found.graph_break_count == 0, found.break_reasons
    assert found.graph_count == 1


@pytest.mark.parametrize("kind", ["lstm", "gru", "tanh", "lstm cell"])
def test_changed_weights_are_seen(kind: str) -> None:
    model = Model(*MODULES[kind])
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    x, hx = inputs(model, 4, 3)
    before = flat(compiled(x, hx))[0]
    for p in model.rnn.parameters():
        p.data.mul_(0.5)
    after = flat(compiled(x, hx))[0]
    assert not torch.allclose(before, after)
    torch.testing.assert_close(after, flat(model(x, hx))[0])
    assert counters["stats"]["unique_graphs"] == 1


@pytest.mark.parametrize("kind", ["lstm", "gru", "relu", "gru cell"])
def test_autocast_and_half(kind: str) -> None:
    model = Model(*MODULES[kind])
    x, hx = inputs(model, 4, 3)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got, want = flat(compiled(x, hx)), flat(model(x, hx))
    assert [t.dtype for t in got] == [t.dtype for t in want]
    torch.testing.assert_close(got, want)
    model = model.to(torch.bfloat16)
    hx = tuple(h.bfloat16() for h in hx) if isinstance(hx, tuple) else hx.bfloat16()
    torch.testing.assert_close(flat(compiled(x.bfloat16(), hx)), flat(model(x.bfloat16(), hx)))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["lstm", "gru", "tanh cell"])
def test_inductor(kind: str) -> None:
    """The default backend, which also compiles what is around our ops."""
    model = Model(*MODULES[kind])
    compiled = torch.compile(model, fullgraph=True)
    parameters = list(model.parameters())
    for steps, batch in SIZES[:3]:
        x, hx = inputs(model, steps, batch)
        got, want = (results(m, parameters, x, hx) for m in (compiled, model))
        torch.testing.assert_close(got, want)
    assert counters["stats"]["unique_graphs"] == 2


@pytest.mark.parametrize("every", [3, "auto"])
def test_recomputation_compiles_for_all_lengths(every: int | str) -> None:
    model = Model("LSTM", {"num_layers": 2, "checkpoint_every": every})
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    parameters = list(model.parameters())
    for steps in (7, 12, 20, 3, 40):
        x, hx = inputs(model, steps, 4)
        got, want = (results(m, parameters, x, hx) for m in (compiled, model))
        torch.testing.assert_close(got, want)
    assert counters["stats"]["unique_graphs"] == 2, "a graph for each length"


@pytest.mark.parametrize("name", ["RNN", "LSTM", "GRU"])
@pytest.mark.parametrize("every", [None, 3, "auto"])
def test_export_with_dynamic_lengths(name: str, every: int | str | None) -> None:
    """With gradients on, as it is by default."""
    model = Model(name, {"num_layers": 2, "bidirectional": True, "checkpoint_every": every}).eval()
    x, _ = inputs(model, 4, 3)
    sizes = {0: torch.export.Dim("steps", min=1, max=1024), 1: torch.export.Dim("batch", min=1, max=1024)}
    program = torch.export.export(model, (x,), dynamic_shapes=(sizes,))
    for steps, batch in SIZES:
        x, _ = inputs(model, steps, batch)
        torch.testing.assert_close(flat(program.module()(x)), flat(model(x)))
