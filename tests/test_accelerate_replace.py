# SPDX-License-Identifier: Apache-2.0
"""rnnfast.accelerate(replace=True): rnnfast's modules around the same parameters, and the way back."""

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

import rnnfast
from rnnfast.accelerate import accelerate, accelerated, restore
from tests.test_accelerate import (
    CASES,
    CELLS,
    Model,
    OwnForward,
    WithMethods,
)
from tests.torchs import assert_same, packed, run, state_of

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(("kind", "options"), CASES)
def test_layers(kind: Any, options: dict) -> None:
    torch.manual_seed(1)
    model = nn.Sequential(kind(5, 17, **options).eval())
    theirs, parameters = copy.deepcopy(model[0]), dict(model.named_parameters())
    original = model[0]
    report = accelerate(model, replace=True)
    assert report.done == 1
    ours = model[0]
    assert type(ours) is getattr(rnnfast, kind.__name__)
    assert not ours.training
    assert dict(model.named_parameters()).keys() == parameters.keys()
    assert all(p is parameters[name] for name, p in model.named_parameters())
    batch = 4 if ours.batch_first else 6
    assert_same(theirs, ours, torch.randn(4, 6, 5), state_of(ours, batch))
    assert_same(theirs.train(), ours.train(), packed([2, 4, 1], 5))
    assert restore(model).done == 1
    assert model[0] is original
    assert original.training, "attributes set meanwhile go back with it"
    assert_same(theirs, original, torch.randn(4, 6, 5))


@pytest.mark.parametrize("name", CELLS)
def test_cells(name: str) -> None:
    kind, more = CELLS[name]
    torch.manual_seed(1)
    model = nn.ModuleList([kind(5, 17, **more)])
    theirs = copy.deepcopy(model[0])
    assert accelerate(model, replace=True).done == 1
    assert type(model[0]) is getattr(rnnfast, kind.__name__)
    assert_same(theirs, model[0], torch.randn(6, 5), state_of(model[0], 6))


def test_model() -> None:
    """A shared module becomes one new module; parents, containers, results and the way back."""
    model = Model()
    before = dict(model.named_modules(remove_duplicate=False))
    x = torch.randn(7, 3, 5)
    want = run(model, x)
    report = accelerate(model, replace=True)
    assert [(row.name, row.done) for row in report] == [
        (name, True) for name in ("first", "rest.0", "rest.1.rnn", "again", "cell")
    ]
    assert str(report).splitlines()[-1] == "5 of 5 replaced"
    assert isinstance(model.first, rnnfast.LSTM)
    assert model.first is model.again
    assert isinstance(model.rest[1]["rnn"], rnnfast.RNN)
    assert model.state_dict().keys() == Model().state_dict().keys()
    got = run(model, x)
    for name, tensor in want.items():
        torch.testing.assert_close(got[name], tensor, msg=lambda m, name=name: f"seed 0: {name}: {m}")
    assert [row.reason for row in accelerate(model)] == ["already rnnfast"] * 5

    copied = copy.deepcopy(model)
    unpickled = pickle.loads(pickle.dumps(model))
    for again in (copied, unpickled):
        assert restore(again).done == 5
        assert type(again.first) is nn.LSTM
        assert again.first is again.again
        assert again.first.weight_hh_l0 is not model.first.weight_hh_l0
        assert torch.equal(run(again, x)["y"], want["y"])
    assert restore(model).done == 5
    after = dict(model.named_modules(remove_duplicate=False))
    assert after.keys() == before.keys()
    assert all(after[name] is module for name, module in before.items())
    assert torch.equal(run(model, x)["y"], want["y"])


def test_parameters_as_they_now_are() -> None:
    """Whatever happened to the parameters meanwhile is there after restore: data, dtype, other objects, hooks."""
    model = nn.Sequential(nn.LSTM(5, 8))
    original = model[0]
    calls: list[str] = []
    original.register_forward_hook(lambda *args: calls.append("hook"))
    accelerate(model, replace=True)
    model[0].register_forward_pre_hook(lambda *args: calls.append("pre"))
    model.double()
    with torch.no_grad():
        model[0].weight_hh_l0.mul_(2)
    model[0].bias_ih_l0 = nn.Parameter(torch.ones(32, dtype=torch.float64))
    model[0].note = "mine"
    x = torch.randn(4, 2, 5, dtype=torch.float64)
    want = model(x)[0]
    assert calls == ["pre", "hook"]
    restore(model)
    assert model[0] is original
    torch.testing.assert_close(original(x)[0], want)
    assert calls == ["pre", "hook"] * 2
    assert original.note == "mine"


def test_optimizer_and_requires_grad() -> None:
    model = Model()
    model.first.weight_ih_l0.requires_grad_(False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    accelerate(model, replace=True)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    model(torch.randn(7, 3, 5)).sum().backward()
    optimizer.step()
    changed = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert "first.weight_ih_l0" not in changed
    assert {"first.weight_hh_l0", "rest.0.weight_hh_l0_reverse", "cell.weight_ih"} <= changed


def test_left_alone() -> None:
    alone = nn.LSTM(5, 8)
    row = accelerate(alone, replace=True).rows[0]
    assert not row.done
    assert "the model itself has no parent" in row.reason
    assert type(alone) is nn.LSTM
    model = nn.ModuleDict({"sub": WithMethods(5, 8), "own": OwnForward(5, 8), "par": nn.GRU(5, 8), "in": nn.GRU(5, 8)})
    parametrizations.weight_norm(model["par"], "weight_hh_l0")
    accelerate(model["in"])
    children = list(model.children())
    report = accelerate(model, replace=True)
    assert {row.name: row.reason for row in report} == {
        "sub": "a subclass: only accelerated in place",
        "own": "its class overrides forward",
        "par": "parametrized: only accelerated in place",
        "in": "already accelerated",
    }
    assert list(model.children()) == children
    accelerate(model)
    assert [row.name for row in restore(model)] == ["sub", "par", "in"]

    model = nn.Sequential(nn.GRU(5, 8))
    accelerate(model, replace=True)
    new = model[0]
    row = restore(new).rows[0]
    assert not row.done
    assert "restore the model around it" in row.reason
    assert model[0] is new


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_old_weight_norm() -> None:
    """Its hook goes along, and finds its tensors in the new module."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.GRU(5, 8))
    nn.utils.weight_norm(model[0], "weight_hh_l0")
    x = torch.randn(4, 2, 5)
    model[0].weight_hh_l0_g.data.mul_(2)
    want = model(x)[0]
    accelerate(model, replace=True)
    torch.testing.assert_close(model(x)[0], want)
    model[0].weight_hh_l0_g.data.div_(2)
    halved = model(x)[0]
    assert not torch.allclose(halved, want)
    restore(model)
    torch.testing.assert_close(model(x)[0], halved)


def test_context() -> None:
    model = Model()
    before = list(model.modules())
    with accelerated(model, replace=True) as report:
        assert report.done == 5
        assert isinstance(model.first, rnnfast.LSTM)
        with accelerated(model) as inner:
            assert inner.done == 0
        assert isinstance(model.first, rnnfast.LSTM)
        model.cell = nn.GRUCell(8, 4)  # put there meanwhile: not ours to undo
    after = list(model.modules())
    assert after[:-1] == before[:-1]
    assert type(model.cell) is nn.GRUCell
    with pytest.raises(ZeroDivisionError), accelerated(model, replace=True):
        raise ZeroDivisionError
    assert list(model.modules()) == after


def test_compile() -> None:
    """What it is for: one graph, forward and backward."""
    model = Model().eval()
    x = torch.randn(7, 3, 5)
    want = run(model, x)
    accelerate(model, replace=True)
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    got = run(compiled, x)
    for name, tensor in want.items():
        torch.testing.assert_close(got[name.replace("grad ", "grad _orig_mod.") if name not in got else name], tensor)


def test_compile_in_place() -> None:
    """In place, torch.compile breaks the graph around the layer, with the right results and our kernels."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.LSTM(5, 8))
    x = torch.randn(7, 3, 5)
    want = model(x)[0]
    accelerate(model)
    torch._dynamo.reset()
    torch.testing.assert_close(torch.compile(model, backend="eager")(x)[0], want)
