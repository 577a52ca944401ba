# SPDX-License-Identifier: Apache-2.0
"""rnnfast.accelerate in place: same results and gradients, everything else about the module as before."""

import copy
import inspect
from typing import Any

import pytest
import torch
from torch import nn

import rnnfast
from rnnfast import cells, functional
from rnnfast.accelerate import accelerate, accelerated, restore
from tests.torchs import assert_same, packed, run, state_of

pytestmark = pytest.mark.usefixtures("one_thread")

LAYERS: dict[str, tuple[type[nn.RNNBase], dict[str, Any]]] = {
    "tanh": (nn.RNN, {}),
    "relu": (nn.RNN, {"nonlinearity": "relu"}),
    "lstm": (nn.LSTM, {}),
    "projected": (nn.LSTM, {"proj_size": 6}),
    "gru": (nn.GRU, {}),
}
CELLS: dict[str, tuple[type[nn.RNNCellBase], dict[str, Any]]] = {
    "tanh-cell": (nn.RNNCell, {}),
    "relu-cell": (nn.RNNCell, {"nonlinearity": "relu"}),
    "lstm-cell": (nn.LSTMCell, {}),
    "gru-cell": (nn.GRUCell, {}),
}
OPTIONS: list[dict[str, Any]] = [
    {},
    {"num_layers": 2, "bidirectional": True, "batch_first": True},
    {"num_layers": 3, "bias": False, "dropout": 0.3},
    {"bias": False, "bidirectional": True},
]


class Model(nn.Module):
    """A shared LSTM, layers in containers, and a cell."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.LSTM(5, 8, 2, dropout=0.2)
        self.rest = nn.ModuleList([nn.GRU(8, 6, bidirectional=True), nn.ModuleDict({"rnn": nn.RNN(12, 8)})])
        self.again = self.first
        self.cell = nn.GRUCell(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y, _ = self.first(x)
        y, _ = self.rest[0](y)
        y, h = self.rest[1]["rnn"](y)
        return self.cell(h[0])


class WithMethods(nn.LSTM):
    """Adds to torch's LSTM without touching its forward."""

    def __init__(self, *args: Any, scale: float = 1.0, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.scale = scale

    def last(self, x: torch.Tensor) -> torch.Tensor:
        return self.scale * self(x)[1][0][-1]


class OwnForward(nn.GRU):
    def forward(self, input: Any, hx: Any = None) -> Any:
        y, h = super().forward(input, hx)
        return 2 * y, h


class OwnChecks(nn.LSTM):
    """Overrides what torch's forward calls on itself."""

    calls = 0

    def check_forward_args(self, input: Any, hidden: Any, batch_sizes: Any) -> None:
        self.calls += 1
        if input.shape[-1] == 3:
            raise KeyError("my own check")
        super().check_forward_args(input, hidden, batch_sizes)

    def permute_hidden(self, hx: Any, permutation: Any) -> Any:
        self.calls += 100
        return super().permute_hidden(hx, permutation)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Grows with every run of rnnfast's layers and cells."""
    calls: list[str] = []
    for where, name in ((functional, "run_layers"), (cells, "step")):
        original = getattr(where, name)

        def wrapper(spec: Any, *args: Any, original: Any = original, **kwargs: Any) -> Any:
            calls.append(spec.name)
            return original(spec, *args, **kwargs)

        monkeypatch.setattr(where, name, wrapper)
    return calls


CASES = [
    pytest.param(kind, more | options, id=f"{name}-{index}")
    for name, (kind, more) in LAYERS.items()
    for index, options in enumerate(OPTIONS)
]


@pytest.mark.parametrize(("kind", "options"), CASES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_layers(kind: Any, options: dict, dtype: torch.dtype, counted: list[str]) -> None:
    """Dense, packed, unbatched, with states and none; dropout's masks are torch's."""
    torch.manual_seed(1)
    module = kind(5, 17, **options, dtype=dtype)
    theirs = copy.deepcopy(module)
    report = accelerate(module)
    assert [(r.name, r.class_name, r.done) for r in report] == [("", f"torch.nn.{kind.__name__}", True)]
    x = torch.randn(4, 6, 5, dtype=dtype)
    batch = 4 if module.batch_first else 6
    for given, hx in (
        (x, None),
        (x, state_of(module, batch, dtype)),
        (x[0], state_of(module, None, dtype)),
        (packed([2, 4, 1], 5, dtype), None),
        (packed([4, 3, 3], 5, dtype), state_of(module, 3, dtype)),
    ):
        assert_same(theirs, module, given, hx)
    assert len(counted) == 5
    for name, parameter in module.named_parameters():
        assert torch.equal(parameter, theirs.get_parameter(name))


@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("bias", [True, False])
def test_cells(name: str, bias: bool, counted: list[str]) -> None:
    kind, more = CELLS[name]
    torch.manual_seed(1)
    module = kind(5, 17, bias, **more)
    theirs = copy.deepcopy(module)
    assert accelerate(module).done == 1
    x = torch.randn(6, 5)
    for given, hx in ((x, None), (x, state_of(module, 6)), (x[0], None), (x[0], state_of(module, None))):
        assert_same(theirs, module, given, hx)
    assert len(counted) == 4
    restore(module)
    assert torch.equal(run(module, x)["grad x"], run(theirs, x)["grad x"])
    assert len(counted) == 4


def test_model_report_and_restore(counted: list[str]) -> None:
    """Each name has a row; the objects, their repr, parameters and state_dict stay; restore gives the classes back."""
    model = Model()
    objects, text, state = list(model.modules()), repr(model), model.state_dict()
    kinds = [type(m) for m in objects]
    report = accelerate(model)
    names = ["first", "rest.0", "rest.1.rnn", "again", "cell"]
    assert [row.name for row in report] == names
    assert all(row.done for row in report)
    assert len(report) == report.done == 5
    assert report.rows[3].reason == "the same object as first"
    lines = str(report).splitlines()
    assert lines[0].split() == ["name", "class", "result"]
    assert lines[1].split() == ["first", "torch.nn.LSTM", "accelerated"]
    assert lines[-1] == "5 of 5 accelerated"
    assert list(model.modules()) == objects
    assert repr(model) == text
    assert model.state_dict().keys() == state.keys()
    assert isinstance(model.first, nn.LSTM)
    assert isinstance(model.cell, nn.GRUCell)

    x = torch.randn(7, 3, 5)
    ours = run(model, x)
    assert counted == ["lstm", "gru", "rnn_tanh", "gru"]
    undone = restore(model)
    assert [row.name for row in undone] == names
    assert str(undone).splitlines()[-1] == "5 of 5 restored"
    assert [type(m) for m in objects] == kinds
    theirs = run(model, x)
    assert len(counted) == 4
    for name, tensor in theirs.items():
        torch.testing.assert_close(ours[name], tensor, msg=lambda m, name=name: f"seed 0: {name}: {m}")
    assert len(restore(model)) == 0


def test_signature_and_keywords() -> None:
    """forward keeps torch's parameters, so that calls by keyword go on working."""
    for kind, more in (*LAYERS.values(), *CELLS.values()):
        module = kind(5, 8, **more)
        accelerate(module)
        assert list(inspect.signature(module.forward).parameters) == ["input", "hx"]
        x = torch.randn(4, 5)
        assert module(input=x, hx=None) is not None


@pytest.mark.parametrize("name", [*LAYERS, *CELLS])
def test_errors_are_torchs(name: str) -> None:
    kind, more = (LAYERS | CELLS)[name]
    module = kind(5, 8, **more)
    theirs = copy.deepcopy(module)
    accelerate(module)
    x = torch.randn(4, 2, 5) if name in LAYERS else torch.randn(2, 5)
    good = state_of(module, 2)
    bad = state_of(module, 3)
    wrong: list[tuple[Any, Any]] = [(x[..., :4], None), (x[None, None], None), (x, bad), (x.double(), None)]
    if isinstance(good, tuple):
        wrong += [(x, good[0][..., :3]), (x, (good[0][..., :3], good[1]))]
    for given, hx in wrong:
        with pytest.raises(Exception) as expected:
            theirs(given, hx)
        with pytest.raises(expected.type) as got:
            module(given, hx)
        assert str(got.value)


def test_subclass_with_methods(counted: list[str]) -> None:
    torch.manual_seed(0)
    module = WithMethods(5, 8, scale=3.0)
    x = torch.randn(4, 2, 5)
    want = module.last(x)
    report = accelerate(module)
    assert report.rows[0].class_name == f"{__name__}.WithMethods"
    torch.testing.assert_close(module.last(x), want)
    assert counted == ["lstm"]
    assert type(module).__mro__[1:] == WithMethods.__mro__
    restore(module)
    assert type(module) is WithMethods


def test_subclass_with_own_checks(counted: list[str]) -> None:
    """torch's forward runs, with all that the subclass overrides, around our kernels."""
    for options in ({}, {"batch_first": True, "bidirectional": True}, {"proj_size": 3, "num_layers": 2}):
        torch.manual_seed(0)
        module = OwnChecks(5, 8, **options)
        theirs = copy.deepcopy(module)
        assert accelerate(module).done == 1
        for x in (torch.randn(4, 2, 5), packed([1, 4, 2], 5), torch.randn(4, 5)):
            assert_same(theirs, module, x)
        assert module.calls > 0
        calls = (module.calls, theirs.calls)
        module(torch.randn(4, 2, 5))
        theirs(torch.randn(4, 2, 5))
        assert module.calls - calls[0] == theirs.calls - calls[1]
        with pytest.raises(KeyError, match="my own check"):
            module(torch.randn(4, 2, 3))
    assert len(counted) == 12


def test_left_alone() -> None:
    """Overridden forwards, on the class or the object, and what else cannot be accelerated: reported, same results."""
    model = nn.ModuleDict(
        {
            "own": OwnForward(5, 8),
            "wrapped": nn.LSTM(5, 8),
            "helper": nn.LSTM(5, 8),
            "base": nn.RNNBase("LSTM", 5, 8),
            "scripted": torch.jit.script(nn.GRUCell(5, 8)),
            "ours": rnnfast.GRU(5, 8),
            "quantizable": torch.ao.nn.quantizable.LSTMCell(5, 8),
        }
    )
    wrapped = model["wrapped"]
    wrapped.forward = lambda *args, forward=wrapped.forward: forward(*args)
    model["helper"].check_input = lambda *args: None
    kinds = {name: type(m) for name, m in model.items()}
    x = torch.randn(4, 2, 5)
    want = [model[name](given)[0] for name, given in (("own", x), ("wrapped", x), ("scripted", x[0]))]
    report = accelerate(model)
    assert report.done == 0
    assert {row.name: row.reason for row in report} == {
        "own": "its class overrides forward",
        "wrapped": "forward is replaced on the object",
        "helper": "check_input is replaced on the object",
        "base": "derives from torch.nn's base class only, with its own forward",
        "scripted": "scripted",
        "ours": "already rnnfast",
        "quantizable": "quantized",
    }
    assert "left alone: its class overrides forward" in str(report)
    assert {name: type(m) for name, m in model.items()} == kinds
    for tensor, (name, given) in zip(want, (("own", x), ("wrapped", x), ("scripted", x[0])), strict=True):
        assert torch.equal(tensor, model[name](given)[0]), name
    plain = nn.Sequential(nn.Linear(2, 2))
    assert len(accelerate(plain)) == 0
    assert "no such modules" in str(accelerate(plain))
    for function in (accelerate, restore):
        with pytest.raises(TypeError, match=r"expected a torch\.nn\.Module, got int"):
            function(3)


def test_twice_and_nested() -> None:
    model = Model()
    with accelerated(model) as report:
        assert report.done == 5
        assert [row.reason for row in accelerate(model)] == ["already accelerated"] * 5
        with accelerated(model) as inner:
            assert inner.done == 0
        assert accelerate(model).done == 0, "the inner block must not undo what the outer one did"
        with pytest.raises(ZeroDivisionError), accelerated(model.rest, replace=True):
            raise ZeroDivisionError
    assert type(model.first) is nn.LSTM
    with pytest.raises(ZeroDivisionError), accelerated(model):
        raise ZeroDivisionError
    assert type(model.first) is nn.LSTM
    with accelerated(model):
        restore(model)
    assert type(model.first) is nn.LSTM
    accelerate(model.cell)
    with accelerated(model) as report:
        assert [row.name for row in report if not row.done] == ["cell"]
    assert type(model.first) is nn.LSTM
    assert type(model.cell) is not nn.GRUCell
