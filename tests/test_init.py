# SPDX-License-Identifier: Apache-2.0
"""rnnfast.init and the modules' option init=: what each writes, what it leaves alone, what it refuses."""

import copy
import itertools
import math
import pickle
import re
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import rnnfast
from rnnfast import init
from tests.torchs import state_of

GATES = {"RNN": 1, "LSTM": 4, "GRU": 3}
STACK = {"num_layers": 2, "bidirectional": True}
I, H = 3, 7


def of_both(name: str, *args: Any, **kwargs: Any) -> list[nn.Module]:
    """rnnfast's module and torch.nn's."""
    return [getattr(package, name)(*args, **kwargs) for package in (rnnfast, nn)]


def every(kinds: tuple[str, ...] = ("RNN", "LSTM", "GRU"), **options: Any) -> list[tuple[int, nn.Module]]:
    """Stacks and cells of both packages, with their number of gates."""
    found = []
    for kind in kinds:
        found += [(GATES[kind], m) for m in of_both(kind, I, H, **STACK, **options)]
        found += [(GATES[kind], m) for m in of_both(f"{kind}Cell", I, H, **options)]
    return found


def named(module: nn.Module, kind: str) -> dict[str, np.ndarray]:
    """The parameters of a kind (weight_hh, bias_ih, ...), in float64."""
    return {n: p.detach().double().numpy() for n, p in module.named_parameters() if n.startswith(kind)}


def snapshot(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in module.named_parameters()}


def assert_untouched(module: nn.Module, before: dict[str, torch.Tensor], but: tuple[str, ...]) -> None:
    for name, parameter in module.named_parameters():
        if not name.startswith(but):
            assert torch.equal(parameter, before[name]), f"{module}: {name} was changed"


def test_irnn() -> None:
    for _, module in every(("RNN",), nonlinearity="relu"):
        torch.manual_seed(0)
        assert init.irnn_(module, scale=0.5, input_std=0.1) is module
        assert all(np.array_equal(w, 0.5 * np.eye(H)) for w in named(module, "weight_hh").values()), module
        assert all(not b.any() for b in named(module, "bias").values()), module
        drawn = np.concatenate([w.ravel() for w in named(module, "weight_ih").values()])
        assert 0.03 < drawn.std() < 0.3, module


def test_irnn_keeps_its_state_and_the_error_signal() -> None:
    """What it is for: without input the state stays, and dL/dh_0 is what came in at the end, 50 steps later."""
    rnn = init.irnn_(rnnfast.RNN(I, H, nonlinearity="relu", dtype=torch.float64))
    h0 = torch.rand(1, 2, H, dtype=torch.float64, requires_grad=True)
    _, h_n = rnn(torch.zeros(50, 2, I, dtype=torch.float64), h0)
    signal = torch.randn(1, 2, H, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    h_n.backward(signal)
    assert torch.equal(h_n, h0)
    assert h0.grad is not None
    assert torch.equal(h0.grad, signal)


def test_the_papers_standard_deviation() -> None:
    rnn = rnnfast.RNN(50, 40, nonlinearity="relu", init="irnn")
    assert rnn.weight_ih_l0.std().item() == pytest.approx(0.001, rel=0.1)


@pytest.mark.parametrize("scale", [1.0, 0.25, 0])
def test_identity(scale: float) -> None:
    for gates, module in every():
        before = snapshot(module)
        assert init.identity_(module, scale) is module
        expected = scale * np.tile(np.eye(H), (gates, 1))
        assert all(np.array_equal(w, expected) for w in named(module, "weight_hh").values()), module
        assert_untouched(module, before, ("weight_hh",))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_orthogonal(dtype: torch.dtype) -> None:
    tolerance = {torch.float64: 1e-13, torch.float32: 1e-5, torch.bfloat16: 0.05}[dtype]
    for gates, module in every(dtype=dtype):
        before = snapshot(module)
        torch.manual_seed(0)
        assert init.orthogonal_(module, gain=0.5) is module
        blocks = [b for w in named(module, "weight_hh").values() for b in np.split(w, gates)]
        for index, block in enumerate(blocks):
            error = np.abs(block.T @ block - 0.25 * np.eye(H)).max()
            assert error < tolerance, f"{module}: block {index}: {error}"
        for a, b in itertools.pairwise(blocks):
            assert np.abs(a - b).max() > 0.1, f"{module}: two gates, layers or directions have the same matrix"
        assert_untouched(module, before, ("weight_hh",))


def test_orthogonal_with_a_projection() -> None:
    """W_hh W_hr has P singular values of 1, so that the state keeps its norm on its way round."""
    P = 3
    for module in of_both("LSTM", I, H, **STACK, proj_size=P, dtype=torch.float64):
        init.orthogonal_(module)
        pairs = zip(named(module, "weight_hh").values(), named(module, "weight_hr").values(), strict=True)
        for w_hh, w_hr in pairs:
            for block in np.split(w_hh, 4):
                values = np.linalg.svd(block @ w_hr, compute_uv=False)
                assert np.allclose(values, [1.0] * P + [0.0] * (H - P), atol=1e-12), module


def total_bias(module: nn.Module, gates: int, gate: int) -> list[np.ndarray]:
    """b_ih + b_hh of one gate, for each layer and direction."""
    pairs = zip(named(module, "bias_ih").values(), named(module, "bias_hh").values(), strict=True)
    return [np.split(a, gates)[gate] + np.split(b, gates)[gate] for a, b in pairs]


def other_gates(module: nn.Module, gates: int, but: set[int]) -> list[np.ndarray]:
    return [np.split(b, gates)[g] for b in named(module, "bias").values() for g in range(gates) if g not in but]


def test_forget_bias() -> None:
    for gates, module in [*every(("LSTM",)), *((4, m) for m in of_both("LSTM", I, H, proj_size=2))]:
        before = snapshot(module)
        kept = other_gates(module, gates, {1})
        assert init.forget_bias_(module, 2.5) is module
        assert all(np.array_equal(b, np.full(H, 2.5)) for b in total_bias(module, gates, 1)), module
        assert all(np.array_equal(a, b) for a, b in zip(kept, other_gates(module, gates, {1}), strict=True)), module
        assert_untouched(module, before, ("bias",))


def test_chrono() -> None:
    """b = log(u), u in [1, t_max - 1]: of the LSTM's f, and -b of i; of the GRU's z, which keeps the state in torch."""
    t_max = 50.0
    for gates, module in every(("LSTM", "GRU")):
        before = snapshot(module)
        keeps = {4: 1, 3: 1}[gates]  # f of i, f, g, o; z of r, z, n
        but = {0, 1} if gates == 4 else {1}
        kept = other_gates(module, gates, but)
        assert init.chrono_(module, t_max) is module
        biases = total_bias(module, gates, keeps)
        for bias in biases:
            assert (bias >= 0).all(), module
            assert (bias <= math.log(t_max - 1)).all(), module
            assert np.unique(bias).size == H, f"{module}: units share a time scale"
        if gates == 4:
            assert all(np.array_equal(i, -f) for i, f in zip(total_bias(module, 4, 0), biases, strict=True)), module
        assert all(np.array_equal(a, b) for a, b in zip(kept, other_gates(module, gates, but), strict=True)), module
        assert_untouched(module, before, ("bias",))


def test_chrono_draws_uniformly() -> None:
    torch.manual_seed(0)
    bias = total_bias(rnnfast.GRU(1, 4000, init=("chrono", 101), dtype=torch.float64), 3, 1)[0]
    steps = np.exp(bias)
    assert steps.mean() == pytest.approx(50.5, rel=0.03)
    assert np.quantile(steps, 0.25) == pytest.approx(25.75, rel=0.1)


def test_chrono_keeps_the_cell_that_long() -> None:
    """A unit of time scale u keeps u/(1+u) of its cell a step at zero input and state: about u steps long."""
    lstm = rnnfast.LSTMCell(I, H, dtype=torch.float64)
    for parameter in lstm.parameters():
        nn.init.zeros_(parameter)  # no candidate: what is left of c is what f kept
    init.chrono_(lstm, 40)
    steps = torch.as_tensor(total_bias(lstm, 4, 1)[0]).exp()
    zeros = torch.zeros(1, H, dtype=torch.float64)
    _, left = lstm(torch.zeros(1, I, dtype=torch.float64), (zeros, torch.ones_like(zeros)))
    torch.testing.assert_close(left[0], steps / (1 + steps), rtol=1e-12, atol=0)


BY_NAME: list[tuple[str, dict[str, Any], Any, Any]] = [
    ("RNN", {"nonlinearity": "relu", "num_layers": 2}, "irnn", init.irnn_),
    ("RNN", {"nonlinearity": "relu"}, ("irnn", 0.5), lambda m: init.irnn_(m, 0.5)),
    ("RNN", {"bidirectional": True}, ("identity", 0.9), lambda m: init.identity_(m, 0.9)),
    ("LSTM", {"proj_size": 3}, "orthogonal", init.orthogonal_),
    ("LSTM", {}, "forget_bias", init.forget_bias_),
    ("LSTM", {}, ["chrono", 30], lambda m: init.chrono_(m, 30)),
    ("GRU", {"num_layers": 2}, ("chrono", 30), lambda m: init.chrono_(m, 30)),
    ("GRU", {}, init.orthogonal_, init.orthogonal_),
    ("RNNCell", {"nonlinearity": "relu"}, "irnn", init.irnn_),
    ("LSTMCell", {}, ("chrono", 30), lambda m: init.chrono_(m, 30)),
    ("GRUCell", {}, "identity", init.identity_),
]


@pytest.mark.parametrize(("kind", "options", "value", "function"), BY_NAME, ids=str)
def test_option_of_the_modules(kind: str, options: dict[str, Any], value: Any, function: Any) -> None:
    """init= is the function after torch.nn's initialisation, at construction and at reset_parameters."""
    build = getattr(rnnfast, kind)
    torch.manual_seed(4)
    expected = build(I, H, **options)
    function(expected)
    torch.manual_seed(4)
    module = build(I, H, **options, init=value)
    for (name, a), b in zip(expected.named_parameters(), module.parameters(), strict=True):
        assert torch.equal(a, b), f"{name}, seed 4"
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.fill_(9.0)
    torch.manual_seed(4)
    module.reset_parameters()
    assert all(torch.equal(a, b) for a, b in zip(expected.parameters(), module.parameters(), strict=True))
    for other in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        torch.manual_seed(4)
        other.reset_parameters()
        assert all(torch.equal(a, b) for a, b in zip(expected.parameters(), other.parameters(), strict=True))
        assert repr(other) == repr(module)
    shown = "orthogonal_" if callable(value) else repr(value)
    assert repr(module) == repr(expected).replace(")", f", init={shown})")
    assert list(module.state_dict()) == list(expected.state_dict())


@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU", "RNNCell", "LSTMCell", "GRUCell"])
def test_none_leaves_torchs_random_stream(kind: str) -> None:
    """Same parameters, and whatever is drawn afterwards is the same too."""
    torch.manual_seed(2)
    theirs = getattr(nn, kind)(I, H)
    after = torch.rand(3)
    torch.manual_seed(2)
    ours = getattr(rnnfast, kind)(I, H, init=None)
    assert all(torch.equal(a, b) for a, b in zip(theirs.parameters(), ours.parameters(), strict=True))
    assert torch.equal(torch.rand(3), after)
    assert repr(ours) == repr(theirs)


@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU", "RNNCell", "LSTMCell", "GRUCell"])
@pytest.mark.parametrize("value", ["eye", 3, ("orthogonal",), ("eye", 1.0), ("chrono", 1, 2), (), (3, 4), {"a": 1}])
def test_unknown_option(kind: str, value: Any) -> None:
    expected = f"{kind}: init: expected None, one of 'irnn', 'identity', 'orthogonal', 'forget_bias', 'chrono', a pair"
    with pytest.raises(ValueError, match=re.escape(expected)):
        getattr(rnnfast, kind)(I, H, init=value)


REFUSED: list[tuple[Any, str]] = [
    (lambda: rnnfast.LSTM(I, H, init="chrono"), "'chrono' needs the longest dependency.*expected ('chrono', t_max)"),
    (lambda: rnnfast.RNN(I, H, init="irnn"), "irnn_: RNN: expected an RNN or RNNCell of nonlinearity 'relu', got "
     "nonlinearity 'tanh'"),
    (lambda: rnnfast.RNN(I, H, nonlinearity="sigmoid", init="irnn"), "got nonlinearity 'sigmoid'"),
    (lambda: rnnfast.RNNCell(I, H, init="irnn"), "irnn_: RNNCell: expected an RNN or RNNCell of nonlinearity 'relu'"),
    (lambda: rnnfast.RNNCell(I, H, nonlinearity="no", init="irnn"), "nonlinearity: expected 'tanh', 'relu' or"),
    (lambda: rnnfast.GRU(I, H, init="irnn"), "irnn_: GRU: expected an RNN or RNNCell of nonlinearity 'relu', got GRU"),
    (lambda: rnnfast.LSTM(I, H, proj_size=2, init="identity"), "expected no projection, got proj_size=2"),
    (lambda: rnnfast.GRU(I, H, init="forget_bias"), "forget_bias_: GRU: expected an LSTM or LSTMCell, got GRU"),
    (lambda: rnnfast.RNN(I, H, init=("chrono", 9)), "chrono_: RNN: expected an LSTM, GRU or one of their cells"),
    (lambda: rnnfast.LSTM(I, H, bias=False, init="forget_bias"), "expected a module with biases, got bias=False"),
    (lambda: rnnfast.GRUCell(I, H, bias=False, init=("chrono", 9)), "expected a module with biases, got bias=False"),
    (lambda: rnnfast.LSTM(I, H, init=("chrono", 1.5)), "chrono_: t_max: expected a finite number >= 2, got 1.5"),
    (lambda: rnnfast.LSTM(I, H, init=("chrono", math.inf)), "t_max: expected a finite number >= 2, got inf"),
    (lambda: rnnfast.LSTM(I, H, init=("chrono", "long")), "t_max: expected a finite number >= 2, got 'long'"),
    (lambda: rnnfast.LSTM(I, H, init=("orthogonal", True)), "gain: expected a finite number, got True"),
    (lambda: rnnfast.LSTM(I, H, init=("forget_bias", math.nan)), "value: expected a finite number, got nan"),
    (lambda: init.irnn_(nn.RNN(I, H, nonlinearity="relu"), input_std=-1.0), "input_std: expected a finite number >= 0"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "message"), REFUSED, ids=[m[:40] for _, m in REFUSED])
def test_refused(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message).replace(r"\.\*", ".*")):
        call()


FUNCTIONS = [init.irnn_, init.identity_, init.orthogonal_, init.forget_bias_, lambda m: init.chrono_(m, 9)]


def test_refuses_what_is_no_recurrent_module() -> None:
    for function in FUNCTIONS:
        for module in (nn.Linear(2, 2), nn.Sequential(nn.LSTM(2, 2)), "lstm"):
            with pytest.raises(
                TypeError, match=r"module: expected an RNN, LSTM, GRU or cell of rnnfast or torch.nn, got"
            ):
                function(module)


def test_refuses_parametrized_weights() -> None:
    """What was written there would not be what the module computes with."""
    lstm = rnnfast.LSTM(I, H)
    nn.utils.parametrizations.weight_norm(lstm, "weight_hh_l0")
    pruned = nn.utils.prune.random_unstructured(nn.GRU(I, H), "weight_ih_l0", amount=1)
    for module, name in ((lstm, "weight_hh_l0"), (pruned, "weight_ih_l0")):
        with pytest.raises(ValueError, match=f"{name}: expected a parameter, but it is parametrized, pruned"):
            init.orthogonal_(module)


def test_without_biases() -> None:
    rnn = rnnfast.RNN(I, H, bias=False, nonlinearity="relu", init="irnn")
    assert torch.equal(rnn.weight_hh_l0, torch.eye(H))


def test_gradients_and_kernels_go_on() -> None:
    """Parameters stay leaves that require gradients; accelerated modules and the kernels see the new values."""
    lstm = nn.LSTM(I, H)
    rnnfast.accelerate(lstm)
    init.orthogonal_(init.chrono_(lstm, 20))
    assert all(p.is_leaf and p.requires_grad for p in lstm.parameters())
    x, hx = torch.randn(4, 2, I), state_of(lstm, 2)
    plain = nn.LSTM(I, H)
    plain.load_state_dict(lstm.state_dict())
    torch.testing.assert_close(lstm(x, hx)[0], plain(x, hx)[0])


def test_on_meta_and_afterwards() -> None:
    """As large models are built: first without memory, then filled by reset_parameters."""
    with torch.device("meta"):
        module = rnnfast.RNN(I, H, nonlinearity="relu", init="irnn")
    module = module.to_empty(device="cpu")
    module.reset_parameters()
    assert torch.equal(module.weight_hh_l0, torch.eye(H))


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")
@pytest.mark.parametrize("value", [("chrono", 20), init.orthogonal_])
def test_script_compiles_a_module_with_init(value: Any) -> None:
    model = nn.Sequential(rnnfast.LSTM(I, H, init=value))
    x = torch.randn(4, 2, I)
    torch.testing.assert_close(torch.jit.script(model)(x)[0], model(x)[0])
