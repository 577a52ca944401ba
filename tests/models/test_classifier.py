# SPDX-License-Identifier: Apache-2.0
"""The classifier: each aggregation by hand and in NumPy, and what order means to it."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rnnfast.models import SequenceClassifier


def counting(aggregation: str) -> SequenceClassifier:
    """Two symbols as unit vectors, aggregated, are the logits."""
    model = SequenceClassifier(2, symbols=2, embedding=2, cell="none", aggregation=aggregation).double()
    with torch.no_grad():
        model.reader.embedding.weight.copy_(torch.eye(2))
        model.output.weight.copy_(torch.eye(2))
        model.output.bias.zero_()
        if aggregation == "attention":  # scores: 0 for symbol 0, ln 3 for symbol 1
            model.attention_hidden.weight.copy_(math.atanh(0.5) * torch.eye(2, dtype=torch.float64))
            model.attention_hidden.bias.zero_()
            model.attention_score.weight.copy_(torch.tensor([[0, 2 * math.log(3)]], dtype=torch.float64))
    return model


def test_aggregations_by_hand() -> None:
    """Samples 0 0 1 and 1 (then padding)."""
    x, lengths = torch.tensor([[0, 1], [0, -7], [1, -7]]), [3, 1]
    expected = {
        "sum": [[2, 1], [0, 1]],
        "mean": [[2 / 3, 1 / 3], [0, 1]],
        "max": [[1, 1], [0, 1]],
        "attention": [[2 / 5, 3 / 5], [0, 1]],  # weights 1, 1, 3 of 5
    }
    for aggregation, want in expected.items():
        model = counting(aggregation)
        np.testing.assert_allclose(model(x, lengths).detach(), want, rtol=1e-12, err_msg=aggregation)
        a, b = want[0]
        loss = -(math.log(math.exp(b) / (math.exp(a) + math.exp(b))) + math.log(math.e / (1 + math.e))) / 2
        assert model.loss(x, torch.tensor([1, 1]), lengths).item() == pytest.approx(loss, rel=1e-12)
    weights = counting("attention").attention(x, lengths)
    np.testing.assert_allclose(weights, [[0.2, 1], [0.2, 0], [0.6, 0]], rtol=1e-12)


def numpy_states(model: SequenceClassifier, x: np.ndarray, suffix: str = "") -> np.ndarray:
    """[T, H] of a tanh-RNN, one step after another."""
    p = {k: v.detach().numpy() for k, v in model.rnn.state_dict().items()}
    h, out = np.zeros(model.rnn.hidden_size), []
    for row in x:
        h = np.tanh(
            p[f"weight_ih_l0{suffix}"] @ row + p[f"bias_ih_l0{suffix}"]
            + p[f"weight_hh_l0{suffix}"] @ h + p[f"bias_hh_l0{suffix}"]
        )  # fmt: skip
        out.append(h)
    return np.array(out)


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("aggregation", ["last", "mean", "sum", "max"])
def test_against_numpy(aggregation: str, bidirectional: bool) -> None:
    model = SequenceClassifier(
        3, features=2, hidden=4, cell="rnn", aggregation=aggregation, bidirectional=bidirectional
    ).double()
    x, lengths = torch.randn(7, 3, 2, dtype=torch.float64), [7, 1, 4]
    got = model(x, lengths).detach()
    for b, n in enumerate(lengths):
        sample = x[:n, b].numpy()
        y = numpy_states(model, sample)
        last = y[-1]
        if bidirectional:
            back = numpy_states(model, sample[::-1], "_reverse")
            last = np.concatenate([last, back[-1]])
            y = np.concatenate([y, back[::-1]], 1)
        read = {"last": last, "mean": y.mean(0), "sum": y.sum(0), "max": y.max(0)}[aggregation]
        want = model.output.weight.detach().numpy() @ read + model.output.bias.detach().numpy()
        np.testing.assert_allclose(got[b], want, rtol=1e-10, err_msg=f"sample {b}")


@given(order=st.permutations(range(5)), aggregation=st.sampled_from(["mean", "sum", "max", "attention"]))
@settings(max_examples=20, deadline=None)
def test_cell_none_is_blind_to_order(order: list[int], aggregation: str) -> None:
    model = SequenceClassifier(3, features=4, cell="none", aggregation=aggregation).double()
    x = torch.randn(5, 2, 4, dtype=torch.float64)
    torch.testing.assert_close(model(x[order]), model(x))


def test_a_recurrent_net_is_not() -> None:
    model = SequenceClassifier(3, features=4, aggregation="sum")
    x = torch.randn(5, 2, 4)
    assert (model(x.flip(0)) - model(x)).abs().max() > 1e-3


def test_predict() -> None:
    model = SequenceClassifier(3, features=4, dropout=0.5).train()
    x = torch.randn(5, 2, 4)
    labels, probabilities = model.predict(x)
    assert model.training
    assert not probabilities.requires_grad
    assert torch.equal(labels, probabilities.argmax(-1))
    torch.testing.assert_close(probabilities.sum(-1), torch.ones(2))
    torch.testing.assert_close(probabilities, model.eval()(x).softmax(-1).detach())


def test_defaults_and_bad_arguments() -> None:
    assert SequenceClassifier(2, features=1).aggregation == "last"
    assert SequenceClassifier(2, features=1, cell="none").aggregation == "sum"
    for options, message in (
        ({}, "expected either symbols .* or features .*, got symbols=None, features=None"),
        ({"symbols": 2, "features": 3}, "got symbols=2, features=3"),
        ({"features": 2, "aggregation": "median"}, "aggregation: expected one of last, mean, .*, got 'median'"),
        ({"features": 2, "cell": "none", "aggregation": "last"}, "cell 'none' has no last state"),
        ({"features": 2, "cell": "elman"}, "cell: expected one of"),
    ):
        with pytest.raises(ValueError, match=message):
            SequenceClassifier(2, **options)
    with pytest.raises(ValueError, match="this model aggregates by 'last'"):
        SequenceClassifier(2, features=1).attention(torch.zeros(2, 1, 1))
