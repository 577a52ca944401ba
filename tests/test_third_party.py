# SPDX-License-Identifier: Apache-2.0
"""Models of other packages (extra `third-party`): same outputs and gradients before and after accelerate.

PyTorch Geometric's models contain LSTM, GRU and GRUCell. PyTorch-NLP and Pyro have classes that derive from
torch.nn.LSTM and GRU: the first with a forward of its own on each object (left alone), the other without (accelerated).
snnTorch's spiking layer steps an LSTMCell.
"""

import copy
import importlib
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rnnfast import cells, functional
from rnnfast.accelerate import Report, accelerate, accelerated, restore

DTYPE = torch.float64


def package(name: str) -> Any:
    """A module of a package of the extra, or a skip that says what to install."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name.split(".")[0]:
            raise
        pytest.skip(f"{error.name} is not installed: pip install 'rnnfast[third-party]'")


def results(model: nn.Module, call: Callable[[Any], Any], seed: int) -> dict[str, Tensor]:
    """All outputs, and the gradients of all parameters for a loss that weighs every output."""
    model.zero_grad()
    torch.manual_seed(seed)
    outputs = call(model)
    outputs = [outputs] if isinstance(outputs, Tensor) else [t for t in _flat(outputs) if t.requires_grad]
    gen = torch.Generator().manual_seed(9)
    torch.autograd.backward(outputs, [torch.randn(t.shape, generator=gen, dtype=t.dtype) for t in outputs])
    found = {f"output {i}": t.detach() for i, t in enumerate(outputs)}
    return found | {f"grad {n}": p.grad for n, p in model.named_parameters() if p.grad is not None}


def _flat(value: Any) -> list[Tensor]:
    return [value] if isinstance(value, Tensor) else [t for v in value for t in _flat(v)]


def assert_same(before: dict[str, Tensor], after: dict[str, Tensor], seed: int) -> None:
    """Within a bound that is tight in float64."""
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        message = lambda m, name=name: f"seed {seed}: {name}: {m}"  # noqa: E731
        rtol, atol = (1e-9, 1e-11) if tensor.dtype == torch.float64 else (1e-4, 1e-6)
        torch.testing.assert_close(after[name], tensor, rtol=rtol, atol=atol, msg=message)


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Grows with every run of rnnfast's layers and cells."""
    calls: list[str] = []
    for where, name in ((functional, "run_layers"), (cells, "step")):
        original = getattr(where, name)

        def wrapper(spec: Any, *args: Any, original: Any = original, **kwargs: Any) -> Any:
            calls.append(spec.name)
            return original(spec, *args, **kwargs)

        monkeypatch.setattr(where, name, wrapper)
    return calls


def check(model: nn.Module, call: Callable[[Any], Any], ran: list[str], runs: list[str], seed: int = 0) -> Report:
    """Before, accelerated, replaced where possible, and restored; `runs` are our runs in one accelerated call."""
    with accelerated(model):
        twin = copy.deepcopy(model)  # of an accelerated model; before any call, since some keep their last states
    kinds = [type(m) for m in model.modules()]
    before = results(model, call, seed)
    assert not ran
    with accelerated(model) as report:
        assert_same(before, results(model, call, seed), seed)
        assert ran == runs
    assert [type(m) for m in model.modules()] == kinds
    assert_same(before, results(twin, call, seed), seed)
    ran.clear()
    with accelerated(model, replace=True) as replaced:
        assert_same(before, results(model, call, seed), seed)
    if all(row.done for row in replaced):
        assert ran == runs
    ran.clear()
    restore(twin)
    assert_same(before, results(twin, call, seed), seed)
    assert_same(before, results(model, call, seed), seed)
    assert not ran
    return report


EDGES = torch.tensor([[0, 1, 1, 2, 3, 4, 0, 5, 5, 2], [1, 0, 2, 1, 4, 3, 5, 0, 2, 5]])


def test_geometric_jumping_knowledge(ran: list[str]) -> None:
    """A graph network whose layers are read by a bidirectional LSTM (Xu et al. 2018)."""
    gnn = package("torch_geometric.nn")
    torch.manual_seed(0)
    model = gnn.GCN(3, 8, num_layers=4, out_channels=2, jk="lstm").to(DTYPE)
    x = torch.randn(6, 3, dtype=DTYPE)
    report = check(model, lambda m: m(x, EDGES), ran, ["lstm"])
    assert [(row.name, row.done) for row in report] == [("jk.lstm", True)]


def test_geometric_aggregations(ran: list[str]) -> None:
    gnn = package("torch_geometric.nn")
    x = torch.randn(7, 5, dtype=DTYPE, generator=torch.Generator().manual_seed(1))
    index = torch.tensor([0, 0, 1, 1, 1, 3, 3])
    for model, runs in (
        (gnn.LSTMAggregation(5, 8), ["lstm"]),
        (gnn.GRUAggregation(5, 8), ["gru"]),
        (gnn.Set2Set(5, processing_steps=3, num_layers=2), ["lstm"] * 3),
    ):
        report = check(model.to(DTYPE), lambda m: m(x, index), ran, runs)
        assert report.done == 1


def test_geometric_cells(ran: list[str]) -> None:
    """Gated graph convolution (Li et al. 2016) and AttentiveFP (Xiong et al. 2020), on GRU cells."""
    gnn = package("torch_geometric.nn")
    torch.manual_seed(0)
    x = torch.randn(6, 3, dtype=DTYPE)
    gated = gnn.GatedGraphConv(8, num_layers=3).to(DTYPE)
    assert check(gated, lambda m: m(x, EDGES), ran, ["gru"] * 3).done == 1
    fingerprint = gnn.AttentiveFP(3, 8, 2, edge_dim=4, num_layers=2, num_timesteps=2).to(DTYPE)
    features = torch.randn(EDGES.shape[1], 4, dtype=DTYPE)
    batch = torch.tensor([0, 0, 0, 1, 1, 1])
    report = check(fingerprint, lambda m: m(x, EDGES, features, batch), ran, ["gru"] * 4)
    assert report.done == 3


@pytest.mark.parametrize("name", ["WeightDropLSTM", "WeightDropGRU"])
def test_nlp_subclass_is_left_alone(name: str, ran: list[str]) -> None:
    """Derives from torch.nn.LSTM (Merity et al. 2017), and replaces forward on each object."""
    layers = package("torchnlp.nn")
    torch.manual_seed(0)
    model = nn.ModuleDict({"drop": getattr(layers, name)(5, 8, 2, weight_dropout=0.4), "rnn": nn.GRU(8, 4)}).to(DTYPE)
    x = torch.randn(6, 3, 5, dtype=DTYPE)
    before = results(model, lambda m: m["rnn"](m["drop"](x)[0]), 3)
    report = accelerate(model)
    assert [(row.name, row.class_name, row.reason) for row in report] == [
        ("drop", f"torchnlp.nn.weight_drop.{name}", "forward is replaced on the object"),
        ("rnn", "torch.nn.GRU", ""),
    ]
    assert_same(before, results(model, lambda m: m["rnn"](m["drop"](x)[0]), 3), 3)
    assert ran == ["gru"]


def test_nlp_weight_drop_around_an_accelerated_lstm(ran: list[str]) -> None:
    """The wrapper takes the forward that it finds; so accelerate first."""
    layers = package("torchnlp.nn")
    found = []
    for use in (False, True):
        torch.manual_seed(0)
        lstm = nn.LSTM(5, 8).to(DTYPE)
        if use:
            accelerate(lstm)
        layers.WeightDrop(lstm, ["weight_hh_l0"], dropout=0.4)
        x = torch.randn(6, 3, 5, dtype=DTYPE)
        found.append(results(lstm, lambda m, x=x: m(x), 3))
    assert_same(*found, 3)
    assert ran == ["lstm"]


@pytest.mark.parametrize(
    ("kind", "cell"), [(nn.LSTM, "lstm"), (nn.GRU, "gru"), (nn.RNN, "rnn_tanh"), (nn.LSTMCell, "lstm")]
)
def test_pyro_subclass(kind: Any, cell: str, ran: list[str]) -> None:
    """PyroModule[nn.LSTM] derives from nn.LSTM, has a metaclass and its own pickling, and torch's forward."""
    pyro = package("pyro.nn")
    torch.manual_seed(0)
    subclass = pyro.PyroModule[kind]
    assert issubclass(subclass, kind)
    assert subclass is not kind
    model = pyro.PyroModule[nn.Sequential](subclass(5, 8).to(DTYPE))
    x = torch.randn(6, 5, dtype=DTYPE)
    report = check(model, lambda m: m(x), ran, [cell])
    assert [(row.name, row.done) for row in report] == [("0", True)]

    accelerate(model)
    again = pickle.loads(pickle.dumps(model))
    assert type(again[0]) is type(model[0])
    assert_same(results(model, lambda m: m(x), 0), results(again, lambda m: m(x), 0), 0)
    restore(again)
    assert type(again[0]) is subclass


def test_pyro_bayesian_lstm(ran: list[str]) -> None:
    """Weights that are drawn from a prior at each call."""
    pyro, nets, dist = package("pyro"), package("pyro.nn"), package("pyro.distributions")
    torch.manual_seed(0)
    model = nets.PyroModule[nn.LSTM](5, 8)
    shape = model.weight_hh_l0.shape
    model.weight_hh_l0 = nets.PyroSample(dist.Normal(0.0, 0.3).expand(shape).to_event(2))
    x = torch.randn(6, 2, 5)
    drawn = []
    for use in (False, True):
        if use:
            assert accelerate(model).done == 1
        pyro.set_rng_seed(3)
        trace = pyro.poutine.trace(model).get_trace(x)
        assert trace.nodes["weight_hh_l0"]["type"] == "sample"
        y = model(x)[0]
        y.sum().backward()
        drawn.append((trace.nodes["_RETURN"]["value"][0], y, model.weight_ih_l0.grad.clone()))
        model.zero_grad()
    for before, after in zip(*drawn, strict=True):
        torch.testing.assert_close(after, before, msg=lambda m: f"seed 3: {m}")
    assert not torch.equal(drawn[0][0], drawn[0][1]), "two calls, two draws"
    assert ran == ["lstm"] * 2


def test_snntorch_spiking_lstm(ran: list[str]) -> None:
    snn = package("snntorch")

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = snn.SLSTM(5, 8, threshold=0.1)
            self.second = snn.SLSTM(8, 4, threshold=0.05)

        def forward(self, x: Tensor) -> Tensor:
            syn1, mem1 = self.first.reset_mem()
            syn2, mem2 = self.second.reset_mem()
            spikes = []
            for step in x:
                spk1, syn1, mem1 = self.first(step, syn1, mem1)
                spk2, syn2, mem2 = self.second(spk1, syn2, mem2)
                spikes.append(spk2)
            return torch.stack([*spikes, mem2])

    torch.manual_seed(0)
    model = Net()  # its states start in float32
    x = torch.randn(6, 3, 5)
    report = check(model, lambda m: m(x), ran, ["lstm"] * 12)
    assert [(row.name, row.done) for row in report] == [("first.lstm_cell", True), ("second.lstm_cell", True)]
