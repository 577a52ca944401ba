# SPDX-License-Identifier: Apache-2.0
"""rnnfast.freeze: the module's results from packed weights, a snapshot until refresh, and the module's errors."""

import copy
import gc
import pickle
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

import rnnfast
from rnnfast.accelerate import accelerate
from rnnfast.frozen import freeze
from tests.helpers import ISAS, assert_within_bound, machine
from tests.test_accelerate import (
    CASES,
    CELLS,
    OwnForward,
    WithMethods,
)
from tests.torchs import flat, packed, state_of

pytestmark = pytest.mark.usefixtures("one_thread")


def double(value: Any) -> Any:
    """A structure of tensors in float64."""
    if isinstance(value, nn.utils.rnn.PackedSequence):
        return nn.utils.rnn.PackedSequence(value.data.double(), *value[1:])
    if isinstance(value, tuple):
        return tuple(double(v) for v in value)
    return value.double() if isinstance(value, Tensor) else value


def assert_as_module(module: nn.Module, frozen: Callable[..., Any], x: Any, hx: Any = None) -> None:
    """The frozen results are within the house's bound, in the form of the module's, and outside autograd."""
    reference = copy.deepcopy(module).double().eval()(double(x), double(hx))
    want = copy.deepcopy(module).eval()(x, hx)
    got = frozen(x, hx)
    assert type(got) is type(want)
    assert type(got[1]) is type(want[1])
    for i, (ours, theirs, exact) in enumerate(zip(flat(got), flat(want), flat(reference), strict=True)):
        assert ours.shape == theirs.shape
        assert ours.dtype == theirs.dtype
        assert not ours.requires_grad
        assert_within_bound(f"result {i}", ours, [theirs], exact.detach().numpy(), f"{module}, seed 1")


@pytest.mark.parametrize(("kind", "options"), CASES)
@pytest.mark.parametrize("source", ["torch", "rnnfast"])
def test_layers(kind: Any, options: dict, source: str) -> None:
    torch.manual_seed(1)
    kind = kind if source == "torch" else getattr(rnnfast, kind.__name__)
    module = kind(5, 17, **options)
    frozen = freeze(module)
    x = torch.randn(4, 6, 5)
    batch = 4 if module.batch_first else 6
    assert_as_module(module, frozen, x)
    assert_as_module(module, frozen, x, state_of(module, batch))
    assert_as_module(module, frozen, x[0], state_of(module, None))
    assert_as_module(module, frozen, x[:1, :1])
    assert_as_module(module, frozen, packed([2, 4, 1], 5))
    assert_as_module(module, frozen, packed([4, 3, 3], 5), state_of(module, 3))
    assert_as_module(module, frozen, x.transpose(0, 1).contiguous().transpose(0, 1))


@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("source", ["torch", "rnnfast"])
@pytest.mark.parametrize("bias", [True, False])
def test_cells(name: str, source: str, bias: bool) -> None:
    kind, more = CELLS[name]
    torch.manual_seed(1)
    module = (kind if source == "torch" else getattr(rnnfast, kind.__name__))(5, 17, bias, **more)
    frozen = freeze(module)
    x = torch.randn(6, 5)
    for given, hx in ((x, None), (x, state_of(module, 6)), (x[0], None), (x[0], state_of(module, None))):
        want, got = flat(module(given, hx)), flat(frozen(given, hx))
        for ours, theirs in zip(got, want, strict=True):
            torch.testing.assert_close(ours, theirs.detach(), msg=lambda m: f"seed 1: {frozen}: {m}")
            assert not ours.requires_grad


def test_sigmoid_which_torch_lacks() -> None:
    torch.manual_seed(1)
    for module, x in (
        (rnnfast.RNN(5, 8, 2, "sigmoid"), torch.randn(4, 3, 5)),
        (rnnfast.RNNCell(5, 8, nonlinearity="sigmoid"), torch.randn(3, 5)),
    ):
        for ours, want in zip(flat(freeze(module)(x)), flat(module(x)), strict=True):
            torch.testing.assert_close(ours, want.detach())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16], ids=str)
def test_dtypes(dtype: torch.dtype) -> None:
    torch.manual_seed(1)
    module = rnnfast.LSTM(5, 17, 2, bidirectional=True, proj_size=3, dtype=dtype)
    x = torch.randn(4, 6, 5, dtype=dtype)
    exact = flat(copy.deepcopy(module).double()(x.double()))
    for got, want, reference in zip(flat(freeze(module)(x)), flat(module(x)), exact, strict=True):
        assert got.dtype == dtype
        assert_within_bound("result", got, [want], reference.detach().numpy(), "seed 1")


def test_autocast() -> None:
    """Results in the dtype that the module gives under autocast."""
    torch.manual_seed(1)
    for module in (rnnfast.LSTM(5, 8), rnnfast.GRU(5, 8), rnnfast.GRUCell(5, 8), rnnfast.RNNCell(5, 8)):
        frozen = freeze(module)
        for x in (torch.randn(4, 5), torch.randn(4, 5).bfloat16()):
            with torch.autocast("cpu", dtype=torch.bfloat16):
                for got, want in zip(flat(frozen(x)), flat(module(x)), strict=True):
                    assert got.dtype == want.dtype, module
                    torch.testing.assert_close(got, want.detach(), rtol=0.05, atol=0.02)


def test_snapshot_and_refresh() -> None:
    torch.manual_seed(1)
    module = nn.LSTM(5, 8)
    frozen = freeze(module)
    x = torch.randn(4, 2, 5)
    before = frozen(x)[0]
    with torch.no_grad():
        module.weight_hh_l0.mul_(2)
    assert torch.equal(frozen(x)[0], before), "a snapshot must not see the change"
    frozen.refresh()
    assert not torch.equal(frozen(x)[0], before)
    assert_as_module(module, frozen, x)
    module.double()
    frozen.refresh()
    assert_as_module(module, frozen, x.double())
    module.load_state_dict(nn.LSTM(5, 8).state_dict())
    frozen.refresh()
    assert_as_module(module, frozen, x.double())


@pytest.mark.parametrize("isa", ISAS)
def test_instruction_sets(isa: str) -> None:
    """A snapshot stays with the instruction set of its making; refresh takes the one in use."""
    torch.manual_seed(1)
    module = nn.GRU(33, 65, 2, bidirectional=True)
    x = torch.randn(20, 7, 33)
    with machine(isa):
        frozen = freeze(module)

    def on_two_threads(x: Tensor, hx: Any) -> Any:
        with machine(threads=2):
            return frozen(x, hx)

    assert_as_module(module, on_two_threads, x)
    frozen.refresh()
    assert_as_module(module, on_two_threads, x)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_computed_weights() -> None:
    """Parametrizations, the older hooks that compute a weight before each call, and accelerated modules."""
    torch.manual_seed(1)
    x = torch.randn(4, 2, 5)
    for prepare in (
        accelerate,
        lambda m: parametrizations.weight_norm(m, "weight_hh_l0"),
        lambda m: nn.utils.weight_norm(m, "weight_hh_l0"),
        lambda m: nn.utils.spectral_norm(m, "weight_hh_l0"),
        lambda m: nn.utils.prune.l1_unstructured(m, "weight_hh_l0", 0.5),
    ):
        module = nn.GRU(5, 8)
        prepare(module)
        module.eval()
        with torch.no_grad():
            for name, parameter in module.named_parameters():
                if "weight_hh" in name and "original0" not in name:
                    parameter.mul_(1.7)  # the computed attribute is stale now
        frozen = freeze(module)
        want = module(x)[0]
        torch.testing.assert_close(frozen(x)[0], want.detach())
    assert not parametrize.is_parametrized(module)


def test_eval_semantics() -> None:
    """No dropout, even of a module in training; no gradients, even to inputs that ask."""
    torch.manual_seed(1)
    module = nn.LSTM(5, 8, 3, dropout=0.5)
    frozen = freeze(module)
    x = torch.randn(4, 2, 5, requires_grad=True)
    assert torch.equal(frozen(x)[0], frozen(x)[0])
    assert not frozen(x)[0].requires_grad
    assert module.training
    y = frozen(x)[0]
    nn.Linear(8, 1)(y).sum().backward()  # a plain tensor: usable in autograd afterwards


def test_attributes_and_repr() -> None:
    module = nn.LSTM(5, 8, 2, bidirectional=True, proj_size=3)
    frozen = freeze(module)
    for name in (
        "input_size",
        "hidden_size",
        "num_layers",
        "bias",
        "batch_first",
        "bidirectional",
        "proj_size",
        "mode",
    ):
        assert getattr(frozen, name) == getattr(module, name)
    assert repr(frozen).startswith("rnnfast.freeze(LSTM(5, 8, proj_size=3, num_layers=2, bidirectional=True), ")
    assert frozen.bytes >= sum(p.numel() * 4 for p in module.parameters() if p.dim() == 2)
    assert freeze(nn.RNNCell(5, 8, nonlinearity="relu")).nonlinearity == "relu"
    with pytest.raises(AttributeError, match="has no attribute 'weight_ih_l0'"):
        frozen.weight_ih_l0  # noqa: B018
    assert not isinstance(frozen, nn.Module)
    holder = nn.Sequential(nn.Linear(2, 2))
    holder.frozen = frozen
    assert len(holder.state_dict()) == 2
    for copier in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="cannot be pickled or copied"):
            copier(frozen)


def test_holds_its_module() -> None:
    frozen = freeze(nn.GRU(5, 8))
    gc.collect()
    frozen.refresh()
    assert "a frozen snapshot: packed weights" in str(rnnfast.explain(frozen, torch.randn(4, 2, 5)))


@pytest.mark.parametrize("source", [nn, rnnfast], ids=["torch", "rnnfast"])
@pytest.mark.parametrize("name", ["RNN", "LSTM", "GRU", "RNNCell", "LSTMCell", "GRUCell"])
def test_errors_are_the_modules(source: Any, name: str) -> None:
    """The types of rnnfast's modules, which the tests of the modules compare with torch's."""
    module = getattr(source, name)(5, 8)
    ours = getattr(rnnfast, name)(5, 8)
    frozen = freeze(module)
    cell = name.endswith("Cell")
    x = torch.randn(2, 5) if cell else torch.randn(4, 2, 5)
    good, bad = state_of(module, 2), state_of(module, 3)
    wrong: list[tuple[Any, Any]] = [(x[..., :4], None), (x[None, None], None), (x, bad), (x.double(), None)]
    if isinstance(good, tuple):
        wrong += [(x, good[0]), (x, (good[0][..., :3], good[1])), (x, (*good, good[0]))]
    if not cell:
        wrong += [(x[:0], None), (packed([2, 1], 4), None), (packed([2, 1], 5), bad), (x, state_of(module, None))]
    for given, hx in wrong:
        with pytest.raises(Exception) as expected:
            ours(given, hx)
        with pytest.raises(expected.type) as got:
            frozen(given, hx)
        if "rnnfast" not in str(expected.value):
            assert str(got.value) == str(expected.value)


def test_what_cannot_be_frozen() -> None:
    with pytest.raises(TypeError, match=r"expected an RNN, LSTM, GRU or cell .* got Linear .*of a model"):
        freeze(nn.Linear(2, 2))
    with pytest.raises(TypeError, match="OwnForward: its class overrides forward"):
        freeze(OwnForward(5, 8))
    with pytest.raises(TypeError, match="derives from torch.nn's base class only"):
        freeze(nn.RNNBase("LSTM", 5, 8))
    wrapped = nn.LSTM(5, 8)
    wrapped.forward = lambda *args: None
    with pytest.raises(TypeError, match="forward is replaced on the object"):
        freeze(wrapped)

    class Ours(rnnfast.GRU):
        def forward(self, *args: Any) -> Any:
            return super().forward(*args)

    with pytest.raises(TypeError, match="overrides forward"):
        freeze(Ours(5, 8))
    for where, module in (("device meta", nn.LSTM(5, 8, device="meta")), ("dtype torch.complex64", _complex())):
        with pytest.raises(ValueError, match=f"no rnnfast kernels for {where}"):
            freeze(module)
    freeze(WithMethods(5, 8))


def _complex() -> nn.Module:
    module = nn.GRUCell(2, 3)
    for name, parameter in list(module.named_parameters()):
        setattr(module, name, nn.Parameter(parameter.detach().to(torch.complex64)))
    return module


def test_threads() -> None:
    """Several threads call one snapshot, another refreshes it: always one state of the weights or the other."""
    torch.manual_seed(1)
    module = nn.LSTM(5, 8)
    frozen = freeze(module)
    x = torch.randn(4, 2, 5)
    first = frozen(x)[0]
    with torch.no_grad():
        module.weight_hh_l0.mul_(2)
    second = freeze(module)(x)[0]
    stop, wrong = threading.Event(), []

    def call() -> None:
        while not stop.is_set():
            y = frozen(x)[0]
            if not (torch.equal(y, first) or torch.equal(y, second)):
                wrong.append(y)

    threads = [threading.Thread(target=call) for _ in range(2)]
    for thread in threads:
        thread.start()
    for _ in range(100):
        frozen.refresh()
    stop.set()
    for thread in threads:
        thread.join()
    assert not wrong, f"seed 1: {wrong[0]}"
    assert torch.equal(frozen(x)[0], second)
