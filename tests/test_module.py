# SPDX-License-Identifier: Apache-2.0
"""rnnfast.LSTM against torch.nn.LSTM: construction, parameters, results, gradients, errors."""

import copy
import io
import itertools
import pickle

import pytest
import torch
from torch import nn

import rnnfast
from tests.helpers import assert_within_bound


def pair(*args, **kwargs) -> tuple[nn.LSTM, rnnfast.LSTM]:
    torch.manual_seed(0)
    theirs = nn.LSTM(*args, **kwargs)
    torch.manual_seed(0)
    return theirs, rnnfast.LSTM(*args, **kwargs)


def run(module: nn.Module, x: torch.Tensor, hx=None, seed: int = 5) -> dict[str, torch.Tensor]:
    """Outputs and all gradients, for a loss that weighs every output."""
    module.zero_grad()
    x = x.detach().requires_grad_()
    if hx is not None:
        hx = tuple(h.detach().requires_grad_() for h in hx)
    torch.manual_seed(seed)
    y, (h, c) = module(x, hx)
    gen = torch.Generator().manual_seed(9)
    torch.autograd.backward(
        [y, h, c], [torch.randn(t.shape, generator=gen, dtype=torch.float64).to(t.dtype) for t in (y, h, c)]
    )
    out = {"y": y, "h": h, "c": c, "grad x": x.grad}
    if hx is not None:
        out |= {"grad h0": hx[0].grad, "grad c0": hx[1].grad}
    return out | {f"grad {n}": p.grad for n, p in module.named_parameters()}


def assert_same(theirs: nn.Module, ours: nn.Module, x: torch.Tensor, hx=None) -> None:
    """fp32 results of both, against torch's in float64."""
    exact = copy.deepcopy(theirs).double()
    reference = run(exact, x.double(), None if hx is None else tuple(h.double() for h in hx))
    expected, got = run(theirs, x, hx), run(ours, x, hx)
    assert expected.keys() == got.keys()
    for name, tensor in got.items():
        assert tensor.shape == expected[name].shape
        assert_within_bound(name, tensor, [expected[name]], reference[name].detach().numpy(), f"{ours}, seed 5")


OPTIONS = [
    dict(zip(("num_layers", "bias", "batch_first", "bidirectional"), values, strict=True))
    for values in itertools.product((1, 2, 3), (True, False), (False, True), (False, True))
]


@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: "-".join(map(str, o.values())))
@pytest.mark.parametrize("given", [False, True], ids=["zeros", "hx"])
def test_same_results(options: dict, given: bool) -> None:
    theirs, ours = pair(5, 17, **options)
    x = torch.randn(4, 6, 5)
    rows = options["num_layers"] * (2 if options["bidirectional"] else 1)
    batch = 4 if options["batch_first"] else 6
    hx = (torch.randn(rows, batch, 17), torch.randn(rows, batch, 17)) if given else None
    assert_same(theirs, ours, x, hx)
    y, y0 = ours(x)[0], theirs(x)[0]
    assert y.stride() == y0.stride()


@pytest.mark.parametrize("batch_first", [False, True])
def test_unbatched(batch_first: bool) -> None:
    theirs, ours = pair(3, 8, 2, batch_first=batch_first)
    assert_same(theirs, ours, torch.randn(7, 3))
    assert_same(theirs, ours, torch.randn(7, 3), (torch.randn(2, 8), torch.randn(2, 8)))


@pytest.mark.parametrize("bidirectional", [False, True])
def test_dropout_masks_are_torchs(bidirectional: bool) -> None:
    theirs, ours = pair(5, 16, 3, dropout=0.4, bidirectional=bidirectional)
    assert_same(theirs, ours, torch.randn(7, 4, 5))
    theirs.eval(), ours.eval()
    assert_same(theirs, ours, torch.randn(7, 4, 5))


def test_parameters_and_state_dict() -> None:
    theirs, ours = pair(5, 9, 2, bidirectional=True)
    assert [n for n, _ in ours.named_parameters()] == [n for n, _ in theirs.named_parameters()]
    for (name, p), q in zip(theirs.named_parameters(), ours.parameters(), strict=True):
        assert torch.equal(p, q), name
    for weights, expected in zip(ours.all_weights, theirs.all_weights, strict=True):
        assert [w.shape for w in weights] == [w.shape for w in expected]
    other = rnnfast.LSTM(5, 9, 2, bidirectional=True)
    other.load_state_dict(theirs.state_dict())
    theirs.load_state_dict(other.state_dict())
    assert repr(ours) == repr(theirs)
    ours.flatten_parameters()


def test_positional_arguments() -> None:
    theirs, ours = pair(5, 9, 2, False, True, 0.5, True, 0, None, torch.float64)
    assert repr(ours) == repr(theirs)
    assert ours.weight_ih_l0.dtype == torch.float64


BAD_CONSTRUCTORS = [
    {"dropout": 1.5}, {"dropout": -0.1}, {"dropout": True}, {"bias": 1}, {"batch_first": 0},
    {"input_size": 2.5}, {"input_size": 0}, {"hidden_size": "8"}, {"hidden_size": 0}, {"hidden_size": -1},
    {"num_layers": 0}, {"proj_size": -1}, {"proj_size": 9},
]  # fmt: skip


@pytest.mark.parametrize("bad", BAD_CONSTRUCTORS, ids=str)
def test_constructor_errors(bad: dict) -> None:
    arguments = {"input_size": 5, "hidden_size": 8, "num_layers": 2} | bad
    with pytest.raises((ValueError, TypeError)) as expected:
        nn.LSTM(**arguments)
    with pytest.raises(type(expected.value)) as got:
        rnnfast.LSTM(**arguments)
    assert str(got.value) == str(expected.value)


def test_dropout_warning() -> None:
    with pytest.warns(UserWarning, match="num_layers greater than 1"):
        rnnfast.LSTM(3, 4, dropout=0.3)


def state(*shape: int) -> torch.Tensor:
    return torch.zeros(shape)


BAD_CALLS = {
    "1-D": (state(5), None),
    "4-D": (state(1, 2, 3, 5), None),
    "features": (state(3, 2, 4), None),
    "dtype": (state(3, 2, 5).double(), None),
    "integer": (state(3, 2, 5).int(), None),
    "no steps": (state(0, 2, 5), None),
    "2-D hx": (state(3, 2, 5), (state(1, 8), state(1, 8))),
    "3-D hx unbatched": (state(3, 5), (state(1, 1, 8), state(1, 1, 8))),
    "hx batch": (state(3, 2, 5), (state(1, 3, 8), state(1, 2, 8))),
    "hx hidden": (state(3, 2, 5), (state(1, 2, 8), state(1, 2, 7))),
    "hx layers": (state(3, 2, 5), (state(2, 2, 8), state(2, 2, 8))),
}


@pytest.mark.parametrize("name", BAD_CALLS)
def test_call_errors(name: str) -> None:
    theirs, ours = pair(5, 8)
    x, hx = BAD_CALLS[name]
    with pytest.raises((ValueError, RuntimeError)) as expected:
        theirs(x, hx)
    with pytest.raises(type(expected.value)) as got:
        ours(x, hx)
    assert str(got.value) == str(expected.value)


def test_wrong_state_dtype() -> None:
    ours = rnnfast.LSTM(5, 8)
    with pytest.raises(RuntimeError, match="h0: expected dtype Float as x, got Double"):
        ours(state(3, 2, 5), (state(1, 2, 8).double(), state(1, 2, 8)))


def test_not_implemented_yet() -> None:
    with pytest.raises(NotImplementedError, match="proj_size"):
        rnnfast.LSTM(5, 8, proj_size=3)
    packed = nn.utils.rnn.pack_sequence([state(3, 5), state(2, 5)])
    with pytest.raises(NotImplementedError, match="PackedSequence"):
        rnnfast.LSTM(5, 8)(packed)


def test_zero_batch() -> None:
    theirs, ours = pair(5, 8, 2)
    x = torch.zeros(3, 0, 5)
    for module in (theirs, ours):
        y, (h, c) = module(x)
        assert (y.shape, h.shape, c.shape) == ((3, 0, 8), (2, 0, 8), (2, 0, 8))
    ours(x)[0].sum().backward()
    assert all(p.grad is not None and not p.grad.any() for p in ours.parameters())


def test_copies() -> None:
    _, ours = pair(5, 8, 2)
    x = torch.randn(3, 2, 5)
    want = ours(x)[0]
    buffer = io.BytesIO()
    torch.save(ours, buffer)
    buffer.seek(0)
    copies = [copy.deepcopy(ours), pickle.loads(pickle.dumps(ours)), torch.load(buffer, weights_only=False)]
    for other in copies:
        assert torch.equal(other(x)[0], want)
    assert torch.equal(torch.func.functional_call(rnnfast.LSTM(5, 8, 2), dict(ours.state_dict()), (x,))[0], want)
    assert ours.double()(x.double())[0].dtype == torch.float64
    assert rnnfast.LSTM(5, 8, device="meta").to_empty(device="cpu").weight_hh_l0.shape == (32, 8)
    assert rnnfast.LSTM(5, 8, device="meta")(x.to("meta"))[0].shape == (3, 2, 8)


def test_changed_weights_are_seen() -> None:
    theirs, ours = pair(5, 8)
    x = torch.randn(3, 2, 5)
    for module in (theirs, ours):
        module(x)
        module.weight_hh_l0.data.mul_(0.5)
        torch.mul(module.weight_ih_l0.data, 2, out=module.weight_ih_l0.data)
        module.bias_ih_l0 = nn.Parameter(torch.ones(32))
    torch.testing.assert_close(ours(x)[0], theirs(x)[0])


def test_parametrization() -> None:
    _, ours = pair(5, 8)
    before = ours(torch.ones(3, 2, 5))[0]
    nn.utils.parametrizations.weight_norm(ours, "weight_hh_l0")
    torch.testing.assert_close(ours(torch.ones(3, 2, 5))[0], before)


def test_frozen_parameters() -> None:
    _, ours = pair(5, 8)
    ours.weight_hh_l0.requires_grad_(False)
    ours(torch.randn(3, 2, 5))[0].sum().backward()
    assert ours.weight_hh_l0.grad is None
    assert ours.weight_ih_l0.grad is not None


def test_half_precision_runs_torch_with_one_warning() -> None:
    _, ours = pair(5, 8)
    ours = ours.bfloat16()
    x = torch.randn(3, 2, 5, dtype=torch.bfloat16)
    rnnfast.modules._warned_fallbacks.clear()
    with pytest.warns(UserWarning, match="no rnnfast kernels for dtype torch.bfloat16"):
        y, _ = ours(x)
    assert y.dtype == torch.bfloat16
    assert "bfloat16" in str(rnnfast.explain(ours, x))


def test_explain() -> None:
    _, ours = pair(5, 8)
    text = rnnfast.explain(ours, torch.zeros(1, 1, 5))
    assert text.path == "rnnfast"
    assert text.threads == 1
    assert "too small" in str(text) or torch.get_num_threads() == 1
    assert "cuda" in str(rnnfast.explain(ours, torch.zeros(1, 1, 5), device="cuda"))
    with pytest.raises(TypeError, match="expected an rnnfast.LSTM, got Linear"):
        rnnfast.explain(nn.Linear(2, 2), torch.zeros(1, 1, 2))


@pytest.mark.slow
def test_compile_without_graph_breaks() -> None:
    """Freezes the granularity of the ops: one a layer, forward and backward traced whole."""

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = rnnfast.LSTM(5, 8, 2, bidirectional=True)
            self.head = nn.Linear(16, 3)

        def forward(self, x, hx=None):
            y, state = self.rnn(x, hx)
            return self.head(y), state

    torch.manual_seed(0)
    model = Model()
    compiled = torch.compile(model, fullgraph=True)
    x = torch.randn(4, 3, 5)
    hx = (torch.randn(4, 3, 8), torch.randn(4, 3, 8))
    for args in ((x,), (x, hx)):
        model.zero_grad()
        y, (h, _) = compiled(*args)
        (y.sum() + h.sum()).backward()
        got = [p.grad.clone() for p in model.parameters()]
        model.zero_grad()
        y0, (h0, _) = model(*args)
        (y0.sum() + h0.sum()).backward()
        torch.testing.assert_close(y, y0)
        torch.testing.assert_close(got, [p.grad for p in model.parameters()])
