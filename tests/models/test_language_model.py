# SPDX-License-Identifier: Apache-2.0
"""The language model against sums done by hand, in NumPy, and over all sequences there are."""

import itertools
import math
from itertools import islice

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from rnnfast.models import LanguageModel
from rnnfast.models.sampling import draw, restrict

CONFIGURATIONS = {
    "lstm": {"layers": 2},
    "textbook": {"cell": "rnn", "bias": False, "embedding": None},
    "tied": {"cell": "gru", "tied": True},
    "adaptive": {"cutoffs": [2]},
}


def small(symbols: int = 4, **options: object) -> LanguageModel:
    return LanguageModel(symbols, **({"hidden": 8, "embedding": 5, "dropout": 0.0} | options)).double()  # type: ignore


def test_loss_by_hand() -> None:
    """One unit: h_1 = tanh(atanh(1/2)) = 1/2, h_2 = tanh(atanh(3/5) - 2 h_1 + 1) = 3/5; logits (2 ln 3 h, 0), so that
    P = 9^h / (9^h + 1): 3/4 at h = 1/2."""
    model = LanguageModel(2, 1, embedding=None, cell="rnn", bias=False, dropout=0.0).double()
    with torch.no_grad():
        model.rnn.weight_ih_l0.copy_(torch.tensor([[math.atanh(0.5), math.atanh(0.6) + 1]], dtype=torch.float64))  # U
        model.rnn.weight_hh_l0.fill_(-2.0)  # W
        model.output.weight.copy_(torch.tensor([[2 * math.log(3)], [0.0]], dtype=torch.float64))  # V
    assert sum(p.numel() for p in model.parameters()) == 5, "U, V, W and nothing else"
    x, target = torch.tensor([[0], [1]]), torch.tensor([[0], [1]])
    want = -(math.log(3 / 4) + math.log(1 / (9**0.6 + 1))) / 2
    loss, state = model.loss(x, target)
    assert loss.item() == pytest.approx(want, rel=1e-12)
    assert state.item() == pytest.approx(0.6, rel=1e-12)


def numpy_log_probabilities(model: LanguageModel, x: np.ndarray) -> np.ndarray:
    """[T, V] of a one-layer tanh-RNN, one step after another in float64."""
    p = {k: v.detach().numpy() for k, v in model.state_dict().items()}
    h, out = np.zeros(p["rnn.weight_hh_l0"].shape[0]), []
    for s in x:
        e = p["embedding.weight"][s]
        h = np.tanh(p["rnn.weight_ih_l0"] @ e + p["rnn.bias_ih_l0"] + p["rnn.weight_hh_l0"] @ h + p["rnn.bias_hh_l0"])
        logits = p["output.weight"] @ h + p["output.bias"]
        out.append(logits - logits.max() - np.log(np.exp(logits - logits.max()).sum()))
    return np.array(out)


def test_against_numpy() -> None:
    model = small(5, cell="rnn")
    rng = np.random.default_rng(0)
    x = rng.integers(5, size=(9, 3))
    lengths = [9, 4, 1]
    logits, _ = model(torch.tensor(x), None, lengths)
    score = model.log_prob(torch.tensor(x), lengths)
    total = 0.0
    for b, n in enumerate(lengths):
        want = numpy_log_probabilities(model, x[:n, b])
        np.testing.assert_allclose(logits[:n, b].log_softmax(-1).detach(), want, rtol=1e-10)
        given_first = want[np.arange(n - 1), x[1:n, b]].sum()
        assert score[b].item() == pytest.approx(given_first, rel=1e-10)
        total += given_first
    assert model.perplexity(torch.tensor(x), lengths) == pytest.approx(math.exp(-total / (8 + 3)), rel=1e-10)


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_probabilities_sum_to_one(name: str) -> None:
    """Over all sequences of length 3; and given the first symbol, over all that follow it."""
    model = small(4, **CONFIGURATIONS[name])
    every = torch.tensor(list(itertools.product(range(4), repeat=3))).t()
    assert model.log_prob(every, start=2).exp().sum().item() == pytest.approx(1, abs=1e-12)
    after = model.log_prob(every).exp().view(4, 16).sum(1)
    np.testing.assert_allclose(after.detach(), np.ones(4), atol=1e-12)


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_log_prob_loss_and_perplexity_agree(name: str) -> None:
    model = small(6, **CONFIGURATIONS[name])
    x, lengths = torch.randint(6, (11, 3)), [11, 3, 7]
    score = model.log_prob(x, lengths, start=1)
    before = torch.cat([torch.ones_like(x[:1]), x[:-1]])
    loss, _ = model.loss(before, x, None, lengths)
    assert loss.item() == pytest.approx(-score.sum().item() / 21, rel=1e-10)
    for chunk in (1, 4, 512):
        assert model.perplexity(x, lengths, start=1, chunk=chunk) == pytest.approx(math.exp(loss.item()), rel=1e-10)
    with pytest.raises(ValueError, match="expected something to predict"):
        model.perplexity(x[:1])


def test_untrained_perplexity_is_the_number_of_symbols() -> None:
    model = small(7)
    torch.nn.init.zeros_(model.output.weight)
    torch.nn.init.zeros_(model.output.bias)
    assert model.perplexity(torch.randint(7, (20, 2))) == pytest.approx(7, rel=1e-12)


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_state_carries_on(name: str) -> None:
    """Two chunks with the state between them are the whole sequence."""
    model = small(6, **CONFIGURATIONS[name])
    x = torch.randint(6, (9, 2))
    whole, _ = model(x)
    first, state = model(x[:4])
    second, _ = model(x[4:], state)
    torch.testing.assert_close(torch.cat([first, second]), whole)


@pytest.mark.parametrize("backend", ["rnnfast", "torch"])
@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_streaming_is_the_whole_sequence(name: str, backend: str) -> None:
    """At temperature 0 each symbol is the most probable after all before it, as the net says of the whole sequence."""
    model = small(6, backend=backend, **CONFIGURATIONS[name]).train()
    model.dropout.p = 0.9  # has no part in it
    prompt = torch.randint(6, (3, 4))
    drawn = model.generate(prompt, 12, temperature=0)
    assert model.training
    assert drawn.shape == (12, 4)
    model.eval()
    logits, _ = model(torch.cat([prompt, drawn]))
    assert torch.equal(logits[2:-1].argmax(-1), drawn)
    for b in range(4):
        assert torch.equal(model.generate(prompt[:, b], 12, temperature=0), drawn[:, b])
    stream = model.stream(prompt, temperature=0)
    assert torch.equal(torch.stack(list(islice(stream, 5))), drawn[:5])
    assert torch.equal(torch.stack(list(islice(stream, 7))), drawn[5:]), "it goes on where it was"
    assert model.generate(prompt, 0).shape == (0, 4)


def test_drawing_follows_the_probabilities() -> None:
    """First symbols drawn 4000 times, against softmax(logits / temperature), within five standard errors."""
    model = small(4)
    n = 4000
    prompt = torch.tensor([1, 3])
    for temperature in (1.0, 0.5):
        g = torch.Generator().manual_seed(1)
        drawn = model.generate(prompt[:, None].expand(2, n), 1, temperature, generator=g)[0]
        p = (model(prompt[:, None])[0][-1, 0].detach() / temperature).softmax(-1)
        share = torch.bincount(drawn, minlength=4) / n
        assert ((share - p).abs() < 5 * (p * (1 - p) / n).sqrt()).all(), (share, p)
    a, b = (model.generate(prompt, 20, generator=torch.Generator().manual_seed(7)) for _ in range(2))
    assert torch.equal(a, b)


@given(
    logits=st.lists(st.floats(-5, 5), min_size=2, max_size=8),
    top_k=st.none() | st.integers(1, 9),
    top_p=st.none() | st.floats(0.01, 1.0),
)
@example(logits=[0.0] * 4, top_k=1, top_p=None)
@example(logits=[0.0] * 4, top_k=3, top_p=0.3)
@settings(deadline=None)
def test_restrict(logits: list[float], top_k: int | None, top_p: float | None) -> None:
    """Kept: the most probable symbols, as few as reach top_p among at most top_k; their logits untouched."""
    x = torch.tensor([logits], dtype=torch.float64)
    kept = restrict(x, top_k, top_p)[0]
    inside = kept.isfinite()
    assert torch.equal(kept[inside], x[0][inside])
    assert kept.max() == x.max()  # of several that are as probable any may be the one
    order = np.argsort(-x[0].numpy(), kind="stable")[: top_k or len(logits)]
    p = np.exp(x[0].numpy()[order])
    cumulated = np.cumsum(p / p.sum())
    n = int(inside.sum())
    if top_p is None or top_p == 1:
        assert n == len(order)
    else:
        assert cumulated[n - 1] >= top_p - 1e-9
        assert n == 1 or cumulated[n - 2] < top_p + 1e-9


def test_draw_never_leaves_the_allowed() -> None:
    logits = torch.tensor([[0.0, 2.0, 1.0, -1.0]]).expand(500, 4)
    assert set(draw(logits, top_k=2).tolist()) == {1, 2}
    assert set(draw(logits, top_p=0.5).tolist()) == {1}
    assert set(draw(logits, temperature=0).tolist()) == {1}


def test_tied_weights_are_one() -> None:
    for embedding, count in ((8, 0), (5, 40)):
        tied = small(30, embedding=embedding, tied=True)
        assert tied.output.weight is tied.embedding.weight
        apart = small(30, embedding=embedding)
        saved = sum(p.numel() for p in apart.parameters()) - sum(p.numel() for p in tied.parameters())
        assert saved == 30 * 8 - count
    for wrong in ({"cutoffs": [2]}, {"embedding": None}):
        with pytest.raises(ValueError, match="LanguageModel: tied: expected an embedding and the full softmax"):
            small(4, tied=True, **wrong)


def test_bad_arguments() -> None:
    model = small()
    x = torch.zeros(3, 2, dtype=torch.int64)

    def refuse(message: str, *args: object, **options: object) -> None:
        with pytest.raises(ValueError, match=message):
            model.stream(*args, **options)  # type: ignore[arg-type]

    refuse("prompt: expected .T. or .T, B., T at least 1, got .0.", x[:0, 0])
    refuse("temperature: expected at least 0, got -1", x, -1.0)
    refuse("temperature: expected at least 0, got nan", x, float("nan"))
    refuse("top_k: expected at least 1, got 0", x, top_k=0)
    refuse("top_p: expected a number above 0 and up to 1, got 0", x, top_p=0.0)
    with pytest.raises(ValueError, match=r"target: expected \[3, 2\] like symbols, got \[2, 2\]"):
        model.loss(x, x[1:])
    with pytest.raises(ValueError, match=r"input: expected \[T, B\], got \[3\] of int64"):
        model(x[:, 0])


def test_gradients_of_log_prob() -> None:
    """Finite differences through embedding, net and output."""
    model = LanguageModel(3, 2, 1, 2, 0.0, cell="gru").double()
    x = torch.randint(3, (4, 2))
    parameters = dict(model.named_parameters())

    def score(*values: Tensor) -> Tensor:
        weights = dict(zip(parameters, values, strict=True))
        run = torch.func.functional_call(Scored(model), {f"model.{k}": v for k, v in weights.items()}, (x, [4, 2]))
        return run.sum()

    assert torch.autograd.gradcheck(score, tuple(p.detach().requires_grad_() for p in parameters.values()))


class Scored(torch.nn.Module):
    """log_prob as a forward, for functional_call."""

    def __init__(self, model: LanguageModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor, lengths: list[int]) -> Tensor:
        return self.model.log_prob(x, lengths, start=0)
