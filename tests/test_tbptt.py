# SPDX-License-Identifier: Apache-2.0
"""rnnfast.tbptt: chunks of the time dimension, state carried, gradient cut."""

import gc
import re
import weakref
from collections import namedtuple
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import rnnfast
from rnnfast.models import LanguageModel
from tests.torchs import flat, packed, state_of

KINDS = [(package, kind) for package in (rnnfast, nn) for kind in ("RNN", "LSTM", "GRU")]
NAMES = [f"{package.__name__}.{kind}" for package, kind in KINDS]
I, H, B, T = 3, 5, 2, 11


def build(package: Any, kind: str, **options: Any) -> nn.Module:
    torch.manual_seed(0)
    return getattr(package, kind)(I, H, num_layers=2, dtype=torch.float64, **options)


def sequence(batch_first: bool = False) -> Tensor:
    x = torch.randn(T, B, I, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return x.transpose(0, 1) if batch_first else x


@pytest.mark.parametrize(("package", "kind"), KINDS, ids=NAMES)
@pytest.mark.parametrize("chunk", [1, 4, 11, 100])
@pytest.mark.parametrize("form", ["time first", "batch first", "unbatched"])
def test_the_whole_sequence_comes_out(package: Any, kind: str, chunk: int, form: str) -> None:
    batch_first = form == "batch first"
    model, x = build(package, kind, batch_first=batch_first), sequence(batch_first)
    if form == "unbatched":
        x = x[:, 0]
        model.batch_first = True  # of no meaning without a batch
    hx = state_of(model, None if form == "unbatched" else B, torch.float64)
    y, end = model(x, hx)
    results = list(rnnfast.tbptt(model, x, chunk, hx))
    axis = int(batch_first)
    assert [part.shape[axis] for part, _ in results] == [min(chunk, T - t) for t in range(0, T, chunk)]
    torch.testing.assert_close(torch.cat([part for part, _ in results], axis), y, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(flat(results[-1][1]), flat(end), rtol=1e-12, atol=1e-12)
    assert type(results[-1][1]) is type(end)


@pytest.mark.parametrize(("package", "kind"), KINDS, ids=NAMES)
def test_gradient_is_that_of_detached_states(package: Any, kind: str) -> None:
    """Against a loop that detaches by hand; the gradient of the first state is that of the first chunk alone."""
    model, x = build(package, kind), sequence()
    hx = [s.requires_grad_() for s in flat(state_of(model, B, torch.float64))]
    given = tuple(hx) if len(hx) == 2 else hx[0]

    def gradients(parts: Any) -> list[Tensor]:
        loss = sum((y.square().sum() for y, _ in parts), torch.zeros((), dtype=torch.float64))
        return list(torch.autograd.grad(loss, [*model.parameters(), *hx]))

    def by_hand() -> Any:
        state = given
        for part in x.split(4):
            y, state = model(part, state)
            state = tuple(s.detach() for s in state) if isinstance(state, tuple) else state.detach()
            yield y, state

    expected, got = gradients(by_hand()), gradients(rnnfast.tbptt(model, x, 4, given))
    for index, (a, b) in enumerate(zip(expected, got, strict=True)):
        assert torch.equal(a, b), f"gradient {index}, seed 0"
    whole = gradients([model(x, given)])
    assert not torch.allclose(whole[1], got[1]), "nothing was cut"


def test_each_chunk_is_a_graph_of_its_own() -> None:
    """Backward, a step of the optimizer and going on with the state in another call, as training does it."""
    model, x = build(rnnfast, "LSTM"), sequence()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    state = None
    for _ in range(2):
        parts = iter(x.split(4))
        for y, end in rnnfast.tbptt(model, x, 4, state):
            expected, state = model(next(parts), state)  # with the weights of the moment
            assert torch.equal(y, expected)
            assert not any(s.requires_grad for s in flat(end))
            assert all(torch.equal(a, b) for a, b in zip(flat(end), flat(state), strict=True))
            optimizer.zero_grad()
            y.square().mean().backward()
            optimizer.step()
            state = end
        assert next(parts, None) is None


def test_no_graph_is_kept() -> None:
    """While a chunk runs, the one before is gone: memory does not grow with the stream."""
    model, x = build(rnnfast, "GRU"), sequence()
    alive: list[weakref.ref[Tensor]] = []

    def counting(part: Tensor, state: Any) -> Any:
        gc.collect()
        assert not [ref for ref in alive if ref() is not None]
        return model(part, state)

    for y, _ in rnnfast.tbptt(counting, x, 2):
        alive.append(weakref.ref(y))
        y.sum().backward()
        del y
    assert len(alive) == 6


def test_runs_when_asked() -> None:
    calls = []

    def model(part: Tensor, state: Any) -> Any:
        calls.append(part.shape[0])
        return part, state

    chunks = rnnfast.tbptt(model, sequence(), 4)
    assert calls == []
    next(chunks)
    assert calls == [4]


Memory = namedtuple("Memory", "h cells")


@pytest.mark.parametrize("form", [list, Memory._make, lambda pair: {"a": pair[0], "b": (pair[1], None)}])
def test_states_of_any_structure(form: Any) -> None:
    weight = torch.ones(1, requires_grad=True)

    def model(part: Tensor, state: Any) -> Any:
        pair = [part[-1] * weight, part[0] * weight]
        if state is not None:
            tensors = [state["a"], *state["b"][:1]] if isinstance(state, dict) else state
            assert not any(s.requires_grad for s in flat(tensors))
        return part * weight, form(pair)

    results = list(rnnfast.tbptt(model, sequence(), 4))
    assert len(results) == 3
    assert type(results[0][1]) is type(form([weight, weight]))


def test_a_whole_model() -> None:
    """Not only layers: symbols [T, B] of a language model, whose last dimension is no feature."""
    model = LanguageModel(9, hidden=6, embedding=4, dropout=0.0)
    symbols = torch.randint(9, (T, B), generator=torch.Generator().manual_seed(3))
    logits, _ = model(symbols)
    parts = [y for y, _ in rnnfast.tbptt(model, symbols, 3)]
    torch.testing.assert_close(torch.cat(parts), logits)


class BatchFirst(nn.Module):
    batch_first = True

    def forward(self, x: Tensor, state: Any) -> Any:
        return x, state


class Around(nn.Module):
    """A model of its own around a layer, which says nothing about its dimensions."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.rnn = rnnfast.GRU(I, H, **options)

    def forward(self, x: Tensor, state: Any) -> Any:
        return self.rnn(x, state)


def test_a_model_around_a_layer() -> None:
    """Whose layers know more than it says: asked for, not guessed."""
    x = torch.randn(B, T, I)
    model = Around(batch_first=True)
    parts = [y for y, _ in rnnfast.tbptt(model, x, 4, batch_first=True)]
    torch.testing.assert_close(torch.cat(parts, 1), model(x, None)[0])
    with pytest.raises(
        ValueError, match="batch_first: expected True or False, got None, and Around has no batch_first"
    ):
        rnnfast.tbptt(model, x, 4)
    parts = [y for y, _ in rnnfast.tbptt(lambda x, s: model(x.transpose(0, 1), s), x.transpose(0, 1), 4)]
    torch.testing.assert_close(torch.cat(parts, 1), model(x, None)[0])
    assert len(list(rnnfast.tbptt(Around(), x.transpose(0, 1), 4))) == 3


def test_batch_first_of_a_whole_model() -> None:
    parts = [y.shape for y, _ in rnnfast.tbptt(BatchFirst(), torch.zeros(B, T), 6)]
    assert parts == [(B, 6), (B, 5)]
    parts = [y.shape for y, _ in rnnfast.tbptt(BatchFirst(), torch.zeros(T, B), 6, batch_first=False)]
    assert parts == [(6, B), (5, B)]


REFUSED: list[tuple[Any, type[Exception], str]] = [
    (lambda m, x: rnnfast.tbptt(m, packed([4, 2], I), 2), ValueError, "x: expected a tensor, got a PackedSequence"),
    (lambda m, x: rnnfast.tbptt(m, [x], 2), TypeError, "x: expected a tensor, got list"),
    (lambda m, x: rnnfast.tbptt(m, x, 0), ValueError, "chunk: expected a whole number of steps >= 1, got 0"),
    (lambda m, x: rnnfast.tbptt(m, x, 2.0), ValueError, "chunk: expected a whole number of steps >= 1, got 2.0"),
    (lambda m, x: rnnfast.tbptt(m, x, True), ValueError, "chunk: expected a whole number of steps >= 1, got True"),
    (lambda m, x: rnnfast.tbptt(m, x[:0], 2), ValueError, "expected time steps in dimension 0, got a tensor of shape"),
    (lambda m, x: rnnfast.tbptt(BatchFirst(), x[0, 0], 2), ValueError, "expected time steps in dimension 1, got"),
    (lambda m, x: rnnfast.tbptt(nn.GRU(I, H, bidirectional=True), x, 2), ValueError, "expected one direction"),
    (lambda m, x: rnnfast.tbptt(Around(bidirectional=True), x, 2), ValueError, "bidirectional=True in rnn: the"),
    (lambda m, x: rnnfast.tbptt(Around(batch_first=True), x, 2), ValueError, "but its rnn is batch_first=True: say"),
    (lambda m, x: rnnfast.tbptt(rnnfast.LSTMCell(I, H), x, 2), TypeError, "got the cell LSTMCell"),
    (lambda m, x: rnnfast.tbptt(nn.GRUCell(I, H), x, 2), TypeError, "got the cell GRUCell"),
    (lambda m, x: next(rnnfast.tbptt(lambda x, s: x, x, 2)), TypeError, "to return (y, state), got Tensor"),
    (lambda m, x: next(rnnfast.tbptt(lambda x, s: (x, x, x), x, 2)), TypeError, "return (y, state), got 3 values"),
    (lambda m, x: next(rnnfast.tbptt(lambda x, s: (x, "h"), x, 2)), TypeError, "expected a state of tensors, tuples"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "error", "message"), REFUSED, ids=[m[:45] for _, _, m in REFUSED])
def test_refused(call: Any, error: type[Exception], message: str) -> None:
    """At the call, not at the first chunk, wherever the call can tell."""
    with pytest.raises(error, match="rnnfast.tbptt: .*" + re.escape(message)):
        call(rnnfast.LSTM(I, H), torch.zeros(T, B, I))
