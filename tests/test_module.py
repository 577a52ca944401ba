# SPDX-License-Identifier: Apache-2.0
"""RNN, LSTM and GRU as objects: construction, parameters, representation, copies, checkpoints, errors."""

import copy
import io
import pickle
from typing import Any

import pytest
import torch
from torch import nn

import rnnfast
from tests.torchs import LAYERS, flat, packed, pair, state_of

EVERY = [*LAYERS, "RNNCell", "LSTMCell", "GRUCell"]


def x_for(module: Any, steps: int = 3, batch: int = 2) -> torch.Tensor:
    """A small input of a module or cell."""
    gen = torch.Generator().manual_seed(3)
    shape = (steps, batch, 5) if hasattr(module, "num_layers") else (batch, 5)
    return torch.randn(shape, generator=gen)


CONSTRUCTIONS: list[tuple[str, tuple, dict[str, Any]]] = [
    ("RNN", (5, 9), {}),
    ("RNN", (5, 9, 2, "relu", False, True, 0.5, True), {}),
    ("RNN", (5, 9, 2), {"nonlinearity": "relu", "bias": False}),
    ("RNN", (5, 9, 2, "tanh", True, False, 0.0, False, 0, None, torch.float64), {}),
    ("LSTM", (5, 9), {}),
    ("LSTM", (5, 9, 2, False, True, 0.5, True, 3, None, torch.float64), {}),
    ("LSTM", (), {"input_size": 5, "hidden_size": 9, "proj_size": 4, "num_layers": 3, "bidirectional": True}),
    ("GRU", (5, 9), {}),
    ("GRU", (5, 9, 2, False, True, 0.5, True, 0, None, torch.float64), {}),
    ("GRU", (5,), {"hidden_size": 9, "num_layers": 2, "batch_first": True, "dtype": torch.bfloat16}),
    ("GRU", (5, 9), {"bidirectional": "yes"}),
    ("RNNCell", (5, 9), {}),
    ("RNNCell", (5, 9, False, "relu", None, torch.float64), {}),
    ("RNNCell", (5, 9), {"nonlinearity": "no such"}),
    ("LSTMCell", (5, 9, False), {"dtype": torch.float64}),
    ("LSTMCell", (), {"input_size": 5, "hidden_size": 9}),
    ("GRUCell", (5, 9, True), {"device": "cpu"}),
    ("GRUCell", (5, 0), {}),
]


@pytest.mark.parametrize(("name", "args", "kwargs"), CONSTRUCTIONS, ids=str)
def test_construction(name: str, args: tuple, kwargs: dict) -> None:
    """The same seed gives the same parameters, names, order and representation; checkpoints go both ways."""
    theirs, ours = pair(name, *args, **kwargs)
    assert repr(ours) == repr(theirs)
    assert [n for n, _ in ours.named_parameters()] == [n for n, _ in theirs.named_parameters()]
    for (n, p), q in zip(theirs.named_parameters(), ours.parameters(), strict=True):
        assert p.dtype == q.dtype, n
        assert torch.equal(p, q), n
    torch.manual_seed(1)
    theirs.reset_parameters()
    torch.manual_seed(1)
    ours.reset_parameters()
    assert all(torch.equal(p, q) for p, q in zip(theirs.parameters(), ours.parameters(), strict=True))
    assert list(ours.state_dict()) == list(theirs.state_dict())
    torch.manual_seed(2)
    other = getattr(rnnfast, name)(*args, **kwargs)
    other.load_state_dict(theirs.state_dict())
    theirs.load_state_dict(other.state_dict())
    for attribute in vars(theirs):
        if not attribute.startswith("_"):
            assert getattr(ours, attribute) == getattr(theirs, attribute), attribute
    for constant in type(theirs).__constants__:
        assert hasattr(ours, constant), constant


@pytest.mark.parametrize("name", LAYERS)
def test_all_weights_and_flat_weights(name: str) -> None:
    more = {"proj_size": 3} if name == "LSTM" else {}
    theirs, ours = pair(name, 5, 9, 2, bidirectional=True, **more)
    assert ours._all_weights == theirs._all_weights
    assert ours._flat_weights_names == theirs._flat_weights_names
    assert [[w.shape for w in ws] for ws in ours.all_weights] == [[w.shape for w in ws] for ws in theirs.all_weights]
    assert all(a is b for a, b in zip(ours._flat_weights, ours.parameters(), strict=True))
    ours._flat_weights = [getattr(ours, n) for n in ours._flat_weights_names]  # as weight-drop code does
    with pytest.raises(AttributeError, match="set the parameters themselves"):
        ours._flat_weights = [torch.zeros(1)]
    assert ours.flatten_parameters() is None
    assert ours.mode == theirs.mode


BAD_CONSTRUCTORS: list[tuple[tuple, dict[str, Any]]] = [
    ((), {}), ((5,), {}), ((5, 8), {"no_such": 1}), ((5, 8), {"mode": "LSTM"}),
    ((5, 8, 2), {"dropout": 1.5}), ((5, 8), {"dropout": -0.1}), ((5, 8), {"dropout": True}),
    ((5, 8), {"dropout": "much"}), ((5, 8), {"bias": 1}), ((5, 8), {"batch_first": 0}), ((2.5, 8), {}),
    ((0, 8), {}), ((5, "8"), {}), ((5, 0), {}), ((5, -1), {}), ((5, 8), {"num_layers": 0}),
    ((5, 8), {"num_layers": "2"}), ((5, 8), {"num_layers": 1.5}), ((5, 8), {"proj_size": -1}),
    ((5, 8), {"proj_size": 8}), ((5, 8), {"dtype": torch.int32}), ((5, 8), {"bias": None, "input_size": 5}),
]  # fmt: skip


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize(("args", "kwargs"), BAD_CONSTRUCTORS, ids=str)
def test_constructor_errors(name: str, args: tuple, kwargs: dict) -> None:
    with pytest.raises((ValueError, TypeError, RuntimeError)) as expected:
        getattr(nn, name)(*args, **kwargs)
    with pytest.raises(type(expected.value)) as got:
        getattr(rnnfast, name)(*args, **kwargs)
    assert type(got.value) is type(expected.value)
    assert str(got.value) == str(expected.value)


def test_constructor_errors_of_nonlinearity_and_projection() -> None:
    with pytest.raises(ValueError, match="Unknown nonlinearity 'True'. Select from 'tanh', 'relu' or 'sigmoid'"):
        rnnfast.RNN(5, 8, 2, True)
    with pytest.raises(ValueError, match="Unknown nonlinearity 'softmax'"):
        rnnfast.RNN(5, 8, nonlinearity="softmax")
    with pytest.raises(TypeError, match="unexpected keyword argument 'nonlinearity'"):
        rnnfast.RNN(5, 8, 2, "relu", nonlinearity="tanh")
    for kind in (rnnfast.RNN, rnnfast.GRU):
        with pytest.raises(ValueError, match="proj_size argument is only supported for LSTM"):
            kind(5, 8, proj_size=0)


@pytest.mark.parametrize("name", LAYERS)
def test_dropout_warning(name: str) -> None:
    with pytest.warns(UserWarning, match="num_layers greater than 1") as expected:
        getattr(nn, name)(3, 4, dropout=0.3)
    with pytest.warns(UserWarning, match="num_layers greater than 1") as got:
        getattr(rnnfast, name)(3, 4, dropout=0.3)
    assert [str(w.message) for w in got] == [str(w.message) for w in expected]
    assert got[0].filename == __file__, "the warning should point at the caller"


def state(*shape: int, dtype: torch.dtype = torch.float32, device: str = "cpu") -> torch.Tensor:
    return torch.zeros(shape, dtype=dtype, device=device)


def twice(name: str, tensor: Any) -> Any:
    return (tensor, tensor) if name == "LSTM" else tensor


double, meta = torch.float64, "meta"
BAD_CALLS: dict[str, Any] = {  # name -> (x, hx)
    "0-D": lambda n: (state(), None),
    "1-D": lambda n: (state(5), None),
    "4-D": lambda n: (state(1, 2, 3, 5), None),
    "list": lambda n: ([1.0, 2.0], None),
    "features": lambda n: (state(3, 2, 4), None),
    "features unbatched": lambda n: (state(3, 4), None),
    "dtype": lambda n: (state(3, 2, 5, dtype=double), None),
    "integer": lambda n: (state(3, 2, 5, dtype=torch.int32), None),
    "device": lambda n: (state(3, 2, 5, device=meta), None),
    "no steps": lambda n: (state(0, 2, 5), None),
    "no steps, no samples": lambda n: (state(0, 0, 5), None),
    "no steps, hx": lambda n: (state(0, 2, 5), twice(n, state(1, 2, 8))),
    "2-D hx": lambda n: (state(3, 2, 5), twice(n, state(1, 8))),
    "3-D hx unbatched": lambda n: (state(3, 5), twice(n, state(1, 1, 8))),
    "hx batch": lambda n: (state(3, 2, 5), twice(n, state(1, 3, 8))),
    "hx hidden": lambda n: (state(3, 2, 5), twice(n, state(1, 2, 7))),
    "hx layers": lambda n: (state(3, 2, 5), twice(n, state(2, 2, 8))),
    "hx hidden unbatched": lambda n: (state(3, 5), twice(n, state(1, 7))),
    "hx dtype": lambda n: (state(3, 2, 5), twice(n, state(1, 2, 8, dtype=double))),
    "hx device": lambda n: (state(3, 2, 5), twice(n, state(1, 2, 8, device=meta))),
    "hx list": lambda n: (state(3, 2, 5), [state(1, 2, 8)] * (3 if n == "LSTM" else 1)),
    "hx single or tuple": lambda n: (state(3, 2, 5), state(1, 2, 8) if n == "LSTM" else (state(1, 2, 8),)),
    "hx stacked": lambda n: (state(3, 2, 5), state(2, 1, 2, 8)),
    "hx of None": lambda n: (state(3, 2, 5), (None, None)),
    "packed hx batch": lambda n: (packed([3, 2], 5), twice(n, state(1, 3, 8))),
    "packed unsorted hx batch": lambda n: (packed([2, 3, 1], 5), twice(n, state(1, 2, 8))),
    "packed features": lambda n: (packed([3, 2], 4), None),
    "packed dtype": lambda n: (packed([3, 2], 5, double), None),
    "packed hx dtype": lambda n: (packed([3, 2], 5), twice(n, state(1, 2, 8, dtype=double))),
    "packed no samples": lambda n: (nn.utils.rnn.PackedSequence(state(0, 5), torch.zeros(0, dtype=torch.int64)), None),
    "packed rows": lambda n: (nn.utils.rnn.PackedSequence(state(5, 5), torch.tensor([2, 2, 2])), None),
    "packed increasing": lambda n: (nn.utils.rnn.PackedSequence(state(5, 5), torch.tensor([2, 3])), None),
    "packed int32": lambda n: (nn.utils.rnn.PackedSequence(state(4, 5), torch.tensor([2, 2]).int()), None),
}
# Where torch's check is a shape error of some inner operation, ours says what is wrong instead.
OWN_MESSAGES = {"hx dtype", "hx stacked", "packed hx dtype", "packed rows", "packed increasing", "packed int32"}
LSTM_OWN_MESSAGES = {"packed hx batch", "packed features", "packed dtype", "hx list", "packed no samples"}


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("case", BAD_CALLS)
def test_call_errors(name: str, case: str) -> None:
    theirs, ours = pair(name, 5, 8)
    x, hx = BAD_CALLS[case](name)
    with pytest.raises((ValueError, RuntimeError, TypeError, AttributeError, IndexError)) as expected:
        theirs(x, hx)
    with pytest.raises(type(expected.value)) as got:
        ours(x, hx)
    assert type(got.value) is type(expected.value)
    if case not in OWN_MESSAGES and not (name == "LSTM" and case in LSTM_OWN_MESSAGES):
        assert str(got.value) == str(expected.value)
    assert len(str(got.value)) > 20


@pytest.mark.parametrize("name", LAYERS)
def test_weights_of_other_dtypes(name: str) -> None:
    for module in pair(name, 5, 8):
        module.weight_hh_l0.data = module.weight_hh_l0.data.double()
        with pytest.raises(RuntimeError):
            module(torch.zeros(3, 2, 5))


@pytest.mark.parametrize("name", LAYERS)
def test_torchs_checks_by_name(name: str) -> None:
    """Subclasses of torch.nn's modules call these."""
    theirs, ours = pair(name, 5, 8, 2, bidirectional=True, batch_first=True)
    x, sizes = torch.zeros(3, 4, 5), packed([3, 2], 5).batch_sizes
    for batch_sizes in (None, sizes):
        want = theirs.get_expected_hidden_size(x, batch_sizes)
        assert ours.get_expected_hidden_size(x, batch_sizes) == want
        if name == "LSTM":
            assert ours.get_expected_cell_size(x, batch_sizes) == theirs.get_expected_cell_size(x, batch_sizes)
    ours.check_forward_args(x, state_of(ours, 3), None)
    with pytest.raises(RuntimeError, match=r"Expected hidden.* size \(4, 3, 8\), got \[4, 2, 8\]"):
        ours.check_forward_args(x, state_of(ours, 2), None)
    order = torch.tensor([2, 0, 1])
    for a, b in zip(
        flat(ours.permute_hidden(state_of(ours, 3), order)), flat(theirs.permute_hidden(state_of(ours, 3), order)),
        strict=True,
    ):  # fmt: skip
        assert torch.equal(a, b)


@pytest.mark.parametrize("name", EVERY)
def test_copies(name: str) -> None:
    _, ours = pair(name, 5, 8)
    x = x_for(ours)
    want = flat(ours(x))[0]
    buffer = io.BytesIO()
    torch.save(ours, buffer)
    buffer.seek(0)
    others = [copy.deepcopy(ours), pickle.loads(pickle.dumps(ours)), torch.load(buffer, weights_only=False)]
    for other in others:
        assert torch.equal(flat(other(x))[0], want)
        assert repr(other) == repr(ours)
    parameters = {n: p.detach().clone() for n, p in ours.named_parameters()}
    fresh = getattr(rnnfast, name)(5, 8)
    assert torch.equal(flat(torch.func.functional_call(fresh, parameters, (x,)))[0], want)
    assert ours.share_memory() is ours
    assert all(p.is_shared() for p in ours.parameters())
    assert torch.equal(flat(ours(x))[0], want)


@pytest.mark.parametrize("name", EVERY)
def test_dtype_and_device_moves(name: str) -> None:
    for dtype in (torch.float64, torch.float16, torch.bfloat16, torch.float32):
        _, ours = pair(name, 5, 8)
        x = x_for(ours).to(dtype)
        assert ours.to(dtype) is ours
        y = flat(ours(x))
        assert {t.dtype for t in y} == {dtype}
        sum(t.float().sum() for t in y).backward()
        assert {p.grad.dtype for p in ours.parameters()} == {dtype}
    on_meta = getattr(rnnfast, name)(5, 8, device="meta")
    shapes = [t.shape for t in flat(on_meta(x_for(ours).to("meta")))]
    assert shapes == [t.shape for t in flat(ours(x_for(ours)))]
    real = on_meta.to_empty(device="cpu")
    real.reset_parameters()
    assert flat(real(x_for(ours)))[0].isfinite().all()
    assert {t.dtype for t in flat(getattr(rnnfast, name)(5, 8).double()(x_for(ours).double()))} == {torch.float64}


@pytest.mark.parametrize("name", LAYERS)
def test_old_pickles(name: str) -> None:
    """The attributes that modules pickled by old versions of torch have: all_weights by name, no proj_size."""
    theirs, ours = pair(name, 5, 8, 2, bidirectional=True)
    want = ours(x_for(ours))[0]
    names = ours._all_weights
    old: dict[str, Any] = {k: v for k, v in vars(theirs).items() if k != "nonlinearity"}
    states = []
    for missing, extra in (
        (("proj_size", "_all_weights", "_flat_weights", "_flat_weight_refs", "_flat_weights_names"),
         {"all_weights": names, "_param_buf_size": 7, "_data_ptrs": []}),
        (("proj_size", "_flat_weights_names"), {"_all_weights": [list(theirs.parameters())[:4]]}),
        ((), {}),
    ):  # fmt: skip
        states.append({k: v for k, v in old.items() if k not in missing} | extra)
    for attributes in states:
        other = getattr(rnnfast, name).__new__(getattr(rnnfast, name))
        other.__setstate__(copy.copy(attributes))
        assert torch.equal(other(x_for(ours))[0], want)
        assert other.proj_size == 0
        assert other._all_weights == names
        assert [w.shape for ws in other.all_weights for w in ws] == [w.shape for w in ours._flat_weights]
        assert repr(other) == repr(ours)


@pytest.mark.parametrize("name", LAYERS)
def test_old_checkpoints(name: str) -> None:
    """Checkpoints without the metadata that newer torch writes, and partial ones, load as into torch.nn's modules."""
    theirs, ours = pair(name, 5, 8, 2)
    plain = {k: v.clone() for k, v in theirs.state_dict().items()}
    assert not any(ours.load_state_dict(plain))
    del plain["weight_hh_l1"]
    plain["weight_hr_l0"] = torch.zeros(2, 8)
    with pytest.raises(RuntimeError) as expected:
        theirs.load_state_dict(plain)
    with pytest.raises(RuntimeError) as got:
        ours.load_state_dict(plain)
    assert str(got.value) == str(expected.value)
    assert ours.load_state_dict(plain, strict=False) == theirs.load_state_dict(plain, strict=False)
