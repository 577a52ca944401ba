# SPDX-License-Identifier: Apache-2.0
"""RNN, LSTM and GRU against torch.nn's: outputs and every gradient, over options and forms of input."""

import itertools
from typing import Any

import pytest
import torch
from torch import nn

import rnnfast
from tests.helpers import assert_bitwise_equal
from tests.torchs import LAYERS, assert_same, flat, packed, pair, run, state_of

pytestmark = pytest.mark.usefixtures("one_thread")

KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "tanh": ("RNN", {}),
    "relu": ("RNN", {"nonlinearity": "relu"}),
    "lstm": ("LSTM", {}),
    "projected": ("LSTM", {"proj_size": 6}),
    "gru": ("GRU", {}),
}
OPTIONS = [
    dict(zip(("num_layers", "bias", "batch_first", "bidirectional"), values, strict=True))
    for values in itertools.product((1, 3), (True, False), (False, True), (False, True))
]
OPTION_IDS = ["-".join(map(str, o.values())) for o in OPTIONS]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("options", OPTIONS, ids=OPTION_IDS)
def test_same_results(kind: str, options: dict) -> None:
    name, more = KINDS[kind]
    theirs, ours = pair(name, 5, 17, **options, **more)
    torch.manual_seed(3)
    x = torch.randn(4, 6, 5)
    assert_same(theirs, ours, x)
    assert_same(theirs, ours, x, state_of(ours, 4 if options["batch_first"] else 6))
    assert ours(x)[0].stride() == theirs(x)[0].stride()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("lengths", [[5, 5, 3, 1], [2, 4, 1, 4, 3], [3], [2, 2]], ids=str)
@pytest.mark.parametrize("options", OPTIONS[::3], ids=OPTION_IDS[::3])
def test_packed(kind: str, lengths: list[int], options: dict) -> None:
    """Sorted or not, with states or none; the output keeps the input's indices."""
    name, more = KINDS[kind]
    theirs, ours = pair(name, 5, 17, **options, **more)
    x = packed(lengths, 5)
    assert_same(theirs, ours, x)
    hx = state_of(ours, len(lengths))
    assert_same(theirs, ours, x, hx)
    y, expected = ours(x, hx)[0], theirs(x, hx)[0]
    assert isinstance(y, nn.utils.rnn.PackedSequence)
    for got, want in zip(y[1:], expected[1:], strict=True):
        assert (got is None) == (want is None)
        assert got is None or torch.equal(got, want)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("batch_first", [False, True])
def test_unbatched(kind: str, batch_first: bool) -> None:
    name, more = KINDS[kind]
    theirs, ours = pair(name, 3, 8, 2, batch_first=batch_first, bidirectional=True, **more)
    torch.manual_seed(3)
    assert_same(theirs, ours, torch.randn(7, 3))
    assert_same(theirs, ours, torch.randn(7, 3), state_of(ours, None))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("probability", [0.4, 1.0])
def test_dropout_masks_are_torchs(kind: str, probability: float) -> None:
    name, more = KINDS[kind]
    theirs, ours = pair(name, 5, 16, 3, dropout=probability, bidirectional=True, **more)
    torch.manual_seed(3)
    x = torch.randn(7, 4, 5)
    for seed in (5, 6):
        assert_same(theirs, ours, x, seed=seed)
        assert_same(theirs, ours, packed([2, 4, 1, 3], 5), seed=seed)
    changed = [not torch.equal(run(ours, x, seed=5)["y"], run(ours, x, seed=s)["y"]) for s in (6, 5)]
    assert changed == [probability < 1, False], "dropout must depend on the seed, and on nothing else"
    theirs.eval(), ours.eval()
    assert_same(theirs, ours, x)
    assert torch.equal(run(ours, x, seed=5)["y"], run(ours, x, seed=6)["y"])


@pytest.mark.parametrize("name", LAYERS)
def test_dropout_draws_as_much_as_torch(name: str) -> None:
    """What comes after the module in a program sees the same random numbers."""
    after = []
    for module in pair(name, 5, 8, 3, dropout=0.3, batch_first=True):
        torch.manual_seed(7)
        module(torch.ones(4, 3, 5))
        after.append(torch.rand(3))
    assert torch.equal(*after)


FORMS = {
    "one step": lambda: torch.randn(1, 3, 5),
    "one sample": lambda: torch.randn(6, 1, 5),
    "one by one": lambda: torch.randn(1, 1, 5),
    "transposed": lambda: torch.randn(3, 4, 5).transpose(0, 1),
    "features apart": lambda: torch.randn(4, 3, 10)[..., ::2],
    "features first": lambda: torch.randn(5, 4, 3).permute(1, 2, 0),
    "expanded steps": lambda: torch.randn(1, 3, 5).expand(4, 3, 5),
    "expanded batch": lambda: torch.randn(4, 1, 5).expand(4, 3, 5),
    "expanded features": lambda: torch.randn(4, 3, 1).expand(4, 3, 5),
    "backwards": lambda: torch.randn(4, 3, 5).flip(0)[1:],
    "long": lambda: torch.randn(300, 2, 5),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("form", FORMS)
def test_forms_of_input(kind: str, form: str) -> None:
    name, more = KINDS[kind]
    theirs, ours = pair(name, 5, 9, 2, bidirectional=True, **more)
    torch.manual_seed(4)
    x = FORMS[form]()
    assert_same(theirs, ours, x, state_of(ours, x.shape[1]))


@pytest.mark.parametrize("name", LAYERS)
def test_expanded_states(name: str) -> None:
    theirs, ours = pair(name, 5, 8)
    one = torch.randn(1, 1, 8, generator=torch.Generator().manual_seed(1)).expand(1, 4, 8)
    assert_same(theirs, ours, torch.ones(3, 4, 5), (one, one) if name == "LSTM" else one)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("batch_first", [False, True])
def test_zero_batch(kind: str, batch_first: bool) -> None:
    name, more = KINDS[kind]
    theirs, ours = pair(name, 5, 8, 2, bidirectional=True, batch_first=batch_first, **more)
    x = torch.zeros((0, 3, 5) if batch_first else (3, 0, 5))
    for hx in (None, state_of(ours, 0)):
        expected, got = flat(theirs(x, hx)), flat(ours(x, hx))
        assert [t.shape for t in got] == [t.shape for t in expected]
    ours(x)[0].sum().backward()
    assert all(p.grad is not None and not p.grad.any() for p in ours.parameters())


def test_sigmoid_is_the_textbooks() -> None:
    """h_t = sigma(W x_t + b + U h_{t-1} + b'), which torch.nn lacks, on rows of either direction."""
    torch.manual_seed(0)
    ours = rnnfast.RNN(5, 8, nonlinearity="sigmoid", bidirectional=True, dtype=torch.float64)
    x, h0 = torch.randn(4, 3, 5, dtype=torch.float64), torch.randn(2, 3, 8, dtype=torch.float64)
    y, h_n = ours(x, h0)
    for direction, suffix in enumerate(("", "_reverse")):
        w, u, b, d = (getattr(ours, f"{n}_l0{suffix}") for n in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
        h = h0[direction]
        for t in reversed(range(4)) if direction else range(4):
            h = torch.sigmoid(x[t] @ w.T + b + h @ u.T + d)
            torch.testing.assert_close(y[t, :, direction * 8 : direction * 8 + 8], h)
        torch.testing.assert_close(h_n[direction], h)
    assert list(ours.state_dict()) == list(nn.RNN(5, 8, bidirectional=True).state_dict())


@pytest.mark.parametrize("kind", KINDS)
def test_functional_is_the_module(kind: str) -> None:
    name, more = KINDS[kind]
    _, ours = pair(name, 5, 8, 2, bidirectional=True, batch_first=True, **more)
    function = getattr(rnnfast.functional, name.lower())
    options = {"num_layers": 2, "bidirectional": True, "batch_first": True}
    options |= {k: v for k, v in more.items() if k == "nonlinearity"}
    x = torch.randn(3, 4, 5)
    for form, hx in ((x, state_of(ours, 3)), (x[0], None), (packed([2, 3], 5), None)):
        got = flat(function(form, hx, list(ours.parameters()), **options))
        for a, b in zip(got, flat(ours(form, hx)), strict=True):
            assert_bitwise_equal("output", a, b)
    with pytest.raises(RuntimeError, match=r"weights: expected \d+.* tensors .*got 3"):
        function(x, None, list(ours.parameters())[:3], **options)


def test_functional_sigmoid_and_unknown() -> None:
    weights = list(rnnfast.RNN(5, 8).parameters())
    y, _ = rnnfast.functional.rnn(torch.ones(2, 5), None, weights, nonlinearity="sigmoid")
    assert ((y > 0) & (y < 1)).all()
    with pytest.raises(ValueError, match="Unknown nonlinearity 'softmax'"):
        rnnfast.functional.rnn(torch.ones(2, 5), None, weights, nonlinearity="softmax")


@pytest.mark.parametrize("name", LAYERS)
def test_gradients_only_for_what_asks(name: str) -> None:
    _, ours = pair(name, 5, 8, 2)
    frozen = [p for n, p in ours.named_parameters() if "hh" in n]
    for p in frozen:
        p.requires_grad_(False)
    x = torch.randn(3, 2, 5)
    y = ours(x)[0]
    y.sum().backward(retain_graph=True)
    assert all((p.grad is None) == any(p is q for q in frozen) for p in ours.parameters())
    once = {n: p.grad.clone() for n, p in ours.named_parameters() if p.grad is not None}
    y.sum().backward()
    for n, g in once.items():
        torch.testing.assert_close(dict(ours.named_parameters())[n].grad, 2 * g)
    for p in ours.parameters():
        p.requires_grad_(False)
    assert not ours(x)[0].requires_grad
    assert ours(x.requires_grad_())[0].requires_grad


@pytest.mark.parametrize("name", LAYERS)
def test_double_backward(name: str) -> None:
    """A gradient penalty: the gradient's own gradient, against torch's."""
    got = []
    for module in pair(name, 3, 4, 2, bidirectional=True, dtype=torch.float64):
        x = torch.randn(3, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()
        (g,) = torch.autograd.grad(module(x)[0].square().sum(), x, create_graph=True)
        got.append(torch.autograd.grad(g.square().sum(), [x, *module.parameters()]))
    torch.testing.assert_close(got[1], got[0])


@pytest.mark.parametrize("name", LAYERS)
def test_modified_output_is_torchs_error(name: str) -> None:
    _, ours = pair(name, 5, 8)
    y, _ = ours(torch.randn(3, 2, 5))
    y.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()
