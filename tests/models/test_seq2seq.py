# SPDX-License-Identifier: Apache-2.0
"""The encoder-decoder against NumPy step by step, and its beam search against all targets there are."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rnnfast.models import Seq2Seq, beam_search

START, END = 0, 1


def net(target_symbols: int = 4, **options: object) -> Seq2Seq:
    options = {"hidden": 6, "embedding": 5, "dropout": 0.0} | options
    model = Seq2Seq(7, target_symbols, start=START, end=END, **options).double()  # type: ignore[arg-type]
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.7)  # far from uniform
    return model


def test_loss_by_hand() -> None:
    """All weights zero but the end's bias: the end has probability 1/2 at each step, the other four 1/8 each."""
    model = net(5)
    with torch.no_grad():
        for p in model.parameters():
            p.zero_()
        model.output.bias[END] = math.log(4)
    source, target = torch.randint(7, (4, 3)), torch.tensor([[2, -1, 3], [4, -1, -1], [2, -1, -1]])
    score = model.log_prob(source, target, None, [3, 0, 1])
    want = [3 * math.log(1 / 8) + math.log(1 / 2), math.log(1 / 2), math.log(1 / 8) + math.log(1 / 2)]
    np.testing.assert_allclose(score.detach(), want, rtol=1e-12)
    assert model.loss(source, target, None, [3, 0, 1]).item() == pytest.approx(-sum(want) / 7, rel=1e-12)


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max())
    return e / e.sum()


def elman(p: dict[str, np.ndarray], prefix: str, x: np.ndarray, h: np.ndarray) -> np.ndarray:
    return np.tanh(
        p[prefix + ".weight_ih_l0"] @ x + p[prefix + ".bias_ih_l0"]
        + p[prefix + ".weight_hh_l0"] @ h + p[prefix + ".bias_hh_l0"]
    )  # fmt: skip


@pytest.mark.parametrize("attention", ["dot", "general", None])
def test_against_numpy(attention: str | None) -> None:
    """Encoder, decoder and Luong's attention, one step after another in float64."""
    model = net(4, cell="rnn", bidirectional=False, attention=attention)
    p = {k: v.detach().numpy() for k, v in model.state_dict().items()}
    source, target = torch.randint(7, (5, 2)), torch.randint(2, 4, (3, 2))
    lengths, target_lengths = [5, 2], [1, 3]
    logits, weights = model(source, target, lengths, target_lengths)
    scores = model.log_prob(source, target, lengths, target_lengths)
    for b in range(2):
        h, states = np.zeros(6), []
        for s in source[: lengths[b], b]:
            h = elman(p, "encoder", p["source_embedding.weight"][s], h)
            states.append(h)
        e = np.array(states)
        symbols = target[: target_lengths[b], b].tolist()
        score = 0.0
        for u, (before, wanted) in enumerate(zip([START, *symbols], [*symbols, END], strict=True)):
            h = elman(p, "decoder", p["target_embedding.weight"][before], h)
            read = h
            if attention is not None:
                keys = e @ p["score.weight"].T if attention == "general" else e
                a = softmax(keys @ h)
                read = np.tanh(p["combine.weight"] @ np.concatenate([a @ e, h]))
                np.testing.assert_allclose(weights[u, b, : lengths[b]].detach(), a, rtol=1e-9)
                assert not weights[u, b, lengths[b] :].any()
            probabilities = softmax(p["output.weight"] @ read + p["output.bias"])
            np.testing.assert_allclose(logits[u, b].softmax(-1).detach(), probabilities, rtol=1e-9)
            score += math.log(probabilities[wanted])
        assert scores[b].item() == pytest.approx(score, rel=1e-9)
    assert (weights is None) == (attention is None)


def every_target(symbols: int, longest: int) -> list[tuple[int, ...]]:
    """All targets of up to so many symbols, without the end."""
    inner = [s for s in range(symbols) if s != END]
    return [y for n in range(longest + 1) for y in itertools.product(inner, repeat=n)]


def score_all(model: Seq2Seq, source: torch.Tensor, targets: list[tuple[int, ...]]) -> np.ndarray:
    """log P of each target for one source [S], all as one padded batch."""
    padded = torch.zeros(max(map(len, targets)), len(targets), dtype=torch.int64)
    for i, y in enumerate(targets):
        padded[: len(y), i] = torch.tensor(y, dtype=torch.int64)
    many = source[:, None].expand(-1, len(targets)).contiguous()
    return model.log_prob(many, padded, None, [len(y) for y in targets]).detach().numpy()


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
@pytest.mark.parametrize("attention", ["dot", "general", None])
def test_wide_beam_is_exhaustive_search(cell: str, attention: str | None) -> None:
    """A beam that holds every target gives all of them, in order, with their log P; for each sample of a batch."""
    model = net(3, cell=cell, attention=attention, layers=2)
    source, lengths = torch.randint(7, (5, 3)), [5, 1, 3]
    targets = every_target(3, 3)
    for alpha in (0.0, 0.8):
        found = model.beam(source, lengths, size=len(targets) + 2, max_length=3, length_penalty=alpha)
        for b, n in enumerate(lengths):
            want = score_all(model, source[:n, b], targets)
            order = np.argsort(-want / np.array([len(y) + 1 for y in targets]) ** alpha)
            got = [tuple(s[:m].tolist()) for s, m in zip(found.symbols[b], found.lengths[b], strict=True)]
            assert got[: len(targets)] == [targets[i] for i in order], f"sample {b}, alpha {alpha}"
            np.testing.assert_allclose(found.scores[b, : len(targets)], want[order], rtol=1e-9)
            assert found.scores[b, len(targets) :].isneginf().all(), "there are no others"
            assert all((s[m:] == END).all() for s, m in zip(found.symbols[b], found.lengths[b], strict=True))


@pytest.mark.parametrize("attention", ["general", None])
def test_probabilities_sum_to_one(attention: str | None) -> None:
    """All ended targets of up to 3 symbols, and all beginnings of 4 that have not ended."""
    model = net(3, attention=attention)
    source = torch.randint(7, (4,))
    ended = np.exp(score_all(model, source, every_target(3, 3))).sum()
    longer = np.array([y for y in every_target(3, 4) if len(y) == 4])
    logits, _ = model(source[:, None].expand(-1, len(longer)).contiguous(), torch.tensor(longer).t())
    log_p = logits.log_softmax(-1)[:-1].gather(-1, torch.tensor(longer).t()[..., None])
    assert ended + log_p.sum(0).exp().sum().item() == pytest.approx(1, abs=1e-10)


@given(size=st.integers(1, 6), seed=st.integers(0, 99))
@settings(max_examples=20, deadline=None)
def test_scores_are_those_of_the_targets(size: int, seed: int) -> None:
    """Whatever a narrow beam finds: different targets, in order, with their true log P."""
    torch.manual_seed(seed)
    model = net(5)
    source, lengths = torch.randint(7, (4, 3)), [4, 2, 1]
    found = model.beam(source, lengths, size, max_length=4)
    greedy = model.greedy(source, lengths, max_length=4)
    for b, n in enumerate(lengths):
        got = [tuple(s[:m].tolist()) for s, m in zip(found.symbols[b], found.lengths[b], strict=True)]
        kept = found.scores[b].isfinite()
        got = [y for y, k in zip(got, kept.tolist(), strict=True) if k]
        assert len(set(got)) == len(got)
        np.testing.assert_allclose(found.scores[b][kept], score_all(model, source[:n, b], got), rtol=1e-9)
        assert (found.scores[b].diff() <= 0).logical_or(~found.scores[b, 1:].isfinite()).all()
    if size == 1:
        assert torch.equal(found.symbols, greedy.symbols)


def test_greedy_takes_the_most_probable_at_each_step() -> None:
    model = net(6)
    source, lengths = torch.randint(7, (5, 8)), [5, 1, 2, 3, 4, 5, 1, 2]
    found = model.greedy(source, lengths, max_length=6)
    for b in range(8):
        n = int(found.lengths[b, 0])
        target = found.symbols[b, 0, :n, None]
        logits, _ = model(source[: lengths[b], b : b + 1], target)
        best = logits[:, 0].argmax(-1)
        assert torch.equal(best[:n], target[:, 0])
        assert n == 6 or best[n] == END


def test_beam_search_alone() -> None:
    """A chain whose greedy path is not the best: 2 first (0.6) leads to 0.6 * 0.4, 3 first (0.4) to 0.4 * 1."""
    p = torch.tensor([[0, 0, 0.6, 0.4], [0, 1, 0, 0], [0, 0.4, 0.3, 0.3], [0, 1, 0, 0]]).log()

    def step(symbols: torch.Tensor, state: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return p[symbols], state

    start = torch.zeros(2, dtype=torch.int64)
    narrow = beam_search(step, torch.zeros(1, 2, 1), start, 1, END, 3)
    assert narrow.symbols[:, 0, 0].tolist() == [2, 2]
    wide = beam_search(step, torch.zeros(1, 4, 1), start, 2, END, 3)
    assert wide.symbols[:, 0, 0].tolist() == [3, 3]
    assert wide.lengths[:, 0].tolist() == [1, 1]
    assert wide.scores[0, 0].item() == pytest.approx(math.log(0.4), rel=1e-6)


def test_search_leaves_the_mode_alone() -> None:
    model = net(4, dropout=0.9).train()
    source = torch.randint(7, (4, 2))
    a, b = model.beam(source), model.beam(source)
    assert torch.equal(a.scores, b.scores), "no dropout in the search"
    assert model.training
    assert not a.scores.requires_grad


def test_bad_arguments() -> None:
    for options, message in (
        ({"start": 0, "end": 4}, "expected two target symbols below 4, got 0 and 4"),
        ({"start": 2, "end": 2}, "got 2 and 2"),
        ({"start": 0, "end": 1, "hidden": 5}, "expected an even number for a bidirectional encoder, got 5"),
        ({"start": 0, "end": 1, "attention": "cosine"}, "expected 'dot', 'general' or None, got 'cosine'"),
    ):
        with pytest.raises(ValueError, match=message):
            Seq2Seq(7, 4, **options)
    model = net()
    source = torch.zeros(3, 2, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"target: expected \[U, 2\], as many samples as source, got \[3, 1\]"):
        model.loss(source, source[:, :1])
    with pytest.raises(ValueError, match="target: lengths: expected 0 to 3, got 4 for sample 1"):
        model.loss(source, source, None, [0, 4])
    with pytest.raises(ValueError, match="Seq2Seq: source: lengths: .* an empty sequence for sample 0"):
        model.loss(source, source, [0, 3])
    with pytest.raises(ValueError, match=r"Seq2Seq: source: input: expected \[T, B\], got \[3\]"):
        model.beam(source[:, 0])
    for size, longest in ((0, 3), (3, 0)):
        with pytest.raises(ValueError, match="size, max_length: expected at least 1"):
            model.beam(source, None, size, longest)
