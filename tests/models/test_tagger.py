# SPDX-License-Identifier: Apache-2.0
"""The tagger: its loss by hand, what it may see when, streams, and calls from sentences."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rnnfast.models import SequenceTagger, Vocabulary, api_call, spans, spell
from tests.models.samples import MODELS, Batch

ONLINE = ["tag-frames", "tag-none", "tag-online-slots"]


def test_loss_by_hand() -> None:
    """The frames are the logits: ln 3 for the first of two labels is P = 3/4."""
    a = math.log(3)
    x = torch.tensor([[[a, 0], [0, a]], [[0, 0], [99, 99]]], dtype=torch.float64)  # the last is padding
    target = torch.tensor([[0, 0], [1, 5]])
    for crf in (False, True):
        model = SequenceTagger(2, features=2, cell="none", crf=crf).double()
        with torch.no_grad():
            model.output.weight.copy_(torch.eye(2))
            model.output.bias.zero_()
            for p in [] if model.crf is None else model.crf.parameters():
                p.zero_()  # then the CRF is a softmax for each step
        loss = model.loss(x, target, [2, 1])
        assert loss.item() == pytest.approx(-(math.log(3 / 4) + math.log(1 / 2) + math.log(1 / 4)) / 3, rel=1e-12)
        assert model.predict(x, [2, 1]).labels.tolist() == [[0, 1], [0, 0]]


def test_intent_by_hand() -> None:
    """All weights zero: every label and intent is as probable as the others."""
    model = SequenceTagger(3, features=2, hidden=4, intents=5).double()
    with torch.no_grad():
        for p in model.parameters():
            p.zero_()
    x = torch.randn(4, 2, 2, dtype=torch.float64)
    loss = model.loss(x, torch.ones(4, 2, dtype=torch.int64), [4, 2], intents=torch.tensor([4, 0]))
    assert loss.item() == pytest.approx(math.log(3) + math.log(5), rel=1e-12)


@pytest.mark.parametrize("name", ONLINE)
@given(t=st.integers(0, 4), seed=st.integers(0, 99))
@settings(max_examples=10, deadline=None)
def test_online_sees_no_future(name: str, t: int, seed: int) -> None:
    torch.manual_seed(seed)
    model = MODELS[name]().eval()
    one, other = Batch(model, 6, [6, 6]), Batch(model, 6, [6, 6])
    changed = Batch(model, 6, [6, 6], seed=seed + 1000)
    other.x[t + 1 :] = changed.x[t + 1 :]
    if other.spelling is not None and changed.spelling is not None:
        for mine, new in zip(other.spelling, changed.spelling, strict=True):
            mine[t + 1 :] = new[t + 1 :]
    a, b = (model(s.x, None, s.spelling)[0] for s in (one, other))
    torch.testing.assert_close(b[: t + 1], a[: t + 1], rtol=0, atol=1e-6)
    if not torch.equal(one.x, other.x):  # few symbols: the new ones may be the old ones
        assert not torch.equal(a, b), "the change has to be seen somewhere"


def test_offline_does_see_it() -> None:
    model = MODELS["tag-slots"]().eval()
    batch = Batch(model, 6, [6, 6])
    before = model(batch.x, None, batch.spelling)[0]
    batch.x[5] = (batch.x[5] + 1) % 7
    assert (model(batch.x, None, batch.spelling)[0][0] - before[0]).abs().max() > 1e-5


@pytest.mark.parametrize("backend", ["rnnfast", "torch"])
@pytest.mark.parametrize("name", ONLINE)
def test_stream_is_the_whole_sequence(name: str, backend: str) -> None:
    model = MODELS[name](backend=backend).double().train()
    batch = Batch(model, 7, [7, 7])
    stream = model.stream(2)

    def spelled(part: Any) -> Any:
        return None if batch.spelling is None else (batch.spelling[0][part], batch.spelling[1][part])

    steps = [stream(batch.x[t], spelled(t)) for t in range(3)]
    got = torch.cat([torch.stack(steps), stream(batch.x[3:], spelled(slice(3, None)))])
    want = model.eval()(batch.x, None, batch.spelling)[0].log_softmax(-1)
    torch.testing.assert_close(got, want.detach())
    assert not got.requires_grad
    stream.reset()
    torch.testing.assert_close(stream(batch.x[0], spelled(0)), got[0])
    with pytest.raises(ValueError, match="expected one step or a chunk of 2 samples"):
        stream(batch.x[0][:1], spelled(0))


def test_what_cannot_stream_says_why() -> None:
    for options, why in (({"bidirectional": True}, "is bidirectional"), ({"crf": True}, "has a CRF")):
        with pytest.raises(ValueError, match=f"got one that {why}: it labels a step only when the whole sequence"):
            SequenceTagger(3, features=2, **options).stream()


def test_spelling_tells_unknown_words_apart() -> None:
    """Two words of the same id with other characters; a word's features do not depend on those beside it."""
    model = MODELS["tag-none"](characters=9, character_hidden=3).double().eval()
    x = torch.zeros(3, 1, dtype=torch.int64)
    letters, lengths = torch.tensor([[[1, 2, 0]], [[1, 2, 3]], [[1, 2, 8]]]), torch.tensor([[2], [3], [2]])
    y = model(x, None, (letters, lengths))[0]
    torch.testing.assert_close(y[0], y[2])
    assert (y[0] - y[1]).abs().max() > 1e-4
    torch.testing.assert_close(model(x[:1], None, (letters[:1], lengths[:1]))[0], y[:1])


def test_spell() -> None:
    v = Vocabulary.build(["ab"])
    ids, lengths = spell([["ab", "b"], ["xbab"]], v)
    assert lengths.tolist() == [[2, 4], [1, 0]]
    assert ids[:, 0].tolist() == [[v["a"], v["b"], 0, 0], [v["b"], 0, 0, 0]]
    assert ids[0, 1].tolist() == [v.unknown_id, v["b"], v["a"], v["b"]]
    for wrong, message in (
        ([], "at least one word"),
        ([[]], "at least one word"),
        ([["a", ""]], "word 1 of sentence 0"),
    ):
        with pytest.raises(ValueError, match=message):
            spell(wrong, v)


def test_spans_as_conlleval_reads_them() -> None:
    assert spans(["O", "B-a", "I-a", "B-a", "I-b", "O", "I-c", "I-c"]) == [
        ("a", 1, 3), ("a", 3, 4), ("b", 4, 5), ("c", 6, 8)]  # fmt: skip
    assert spans([]) == []
    assert spans(["B-x-y"]) == [("x-y", 0, 1)]


@given(st.lists(st.sampled_from(["O", "B-a", "I-a", "B-b", "I-b"]), max_size=12))
def test_spans_cover_what_is_not_outside(labels: list[str]) -> None:
    covered = [i for s in spans(labels) for i in range(s.begin, s.end)]
    assert covered == [i for i, label in enumerate(labels) if label != "O"]
    for s in spans(labels):
        assert {label[2:] for label in labels[s.begin : s.end]} == {s.kind}
        assert all(label.startswith("I") for label in labels[s.begin + 1 : s.end])


def test_api_call() -> None:
    words = ["flights", "from", "new", "york", "to", "denver", "or", "boston"]
    labels = ["O", "O", "B-from", "I-from", "O", "B-to", "O", "B-to"]
    assert api_call(words, labels, "flight") == {
        "intent": "flight", "slots": {"from": "new york", "to": ["denver", "boston"]}}  # fmt: skip
    with pytest.raises(ValueError, match="expected one for each of 8 words, got 1"):
        api_call(words, ["O"])


def test_learns_to_understand() -> None:
    """A handful of sentences, spelled too: the call of one that is new."""
    sentences = [
        ("flights from boston to denver", "O O B-from O B-to", "flight"),
        ("flights to boston from denver", "O O B-to O B-from", "flight"),
        ("fares from dallas to boston", "O O B-from O B-to", "fare"),
        ("fares to dallas from denver", "O O B-to O B-from", "fare"),
    ]
    words = [s.split() for s, _, _ in sentences]
    vocabulary = {
        "words": Vocabulary.build(words),
        "labels": Vocabulary(["O", "B-from", "B-to"]),
        "intents": Vocabulary(["fare", "flight"]),
        "characters": Vocabulary.build(w for s in words for w in s),
    }
    model = SequenceTagger(
        3, symbols=len(vocabulary["words"]), embedding=8, hidden=16, bidirectional=True, intents=2,
        characters=len(vocabulary["characters"]), character_embedding=6, character_hidden=6, crf=True,
    )  # fmt: skip
    model.vocabulary = vocabulary
    x = torch.tensor([vocabulary["words"].encode(w) for w in words]).t()
    target = torch.tensor([vocabulary["labels"].encode(labels.split()) for _, labels, _ in sentences]).t()
    intents = torch.tensor(vocabulary["intents"].encode(i for _, _, i in sentences))
    spelling = spell(words, vocabulary["characters"])
    optimizer = torch.optim.Adam(model.parameters(), 0.03)
    for _ in range(40):
        optimizer.zero_grad()
        model.loss(x, target, None, spelling, intents).backward()
        optimizer.step()
    call = model.understand(["flights", "from", "dallas", "to", "boston"])
    assert call == {"intent": "flight", "slots": {"from": "dallas", "to": "boston"}}
    with pytest.raises(ValueError, match="words: expected at least one"):
        model.understand([])


def test_bad_arguments() -> None:
    plain, full = MODELS["tag-frames"](), MODELS["tag-slots"]()
    batch = Batch(full)
    x = torch.zeros(6, 3, 4)
    with pytest.raises(ValueError, match="intents: expected none: the model has no intents"):
        plain.loss(x, batch.labels, None, None, batch.intents)
    with pytest.raises(ValueError, match="intents: expected the samples' intents"):
        full.loss(batch.x, batch.labels, None, batch.spelling)
    with pytest.raises(ValueError, match="spelling: expected none: the model has no characters"):
        plain(x, None, batch.spelling)
    with pytest.raises(ValueError, match=r"spelling: expected \(characters, lengths\)"):
        full(batch.x)
    swapped = tuple(part.transpose(0, 1) for part in batch.spelling)  # as many words, of other steps
    with pytest.raises(
        ValueError, match=r"spelling: expected characters \[6, 3, C\] and lengths \[6, 3\], got \[3, 6,"
    ):
        full(batch.x, None, swapped)
    with pytest.raises(ValueError, match=r"target: expected \[6, 3\], got \[5, 3\]"):
        plain.loss(x, batch.labels[1:])
    with pytest.raises(ValueError, match="cell 'none' has no state of the whole sequence"):
        SequenceTagger(3, features=2, cell="none", intents=2)
    assert np.isfinite(plain.loss(x, batch.labels).item())
