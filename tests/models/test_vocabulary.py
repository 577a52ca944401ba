# SPDX-License-Identifier: Apache-2.0
"""Symbols to ids and back."""

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rnnfast.models import Vocabulary


def test_build_orders_by_frequency() -> None:
    v = Vocabulary.build(["abca", "cab", "a"], special=("<s>",))
    assert v.symbols == ("<pad>", "<unk>", "<s>", "a", "b", "c")
    assert (v.padding_id, v.unknown_id, v["<s>"], len(v)) == (0, 1, 2, 6)
    assert Vocabulary.build(["abca", "cab"], min_count=3, padding=None, unknown=None).symbols == ("a",)
    assert Vocabulary.build(["abca", "cab"], max_size=3).symbols == ("<pad>", "<unk>", "a")
    assert Vocabulary.build([["<unk>", "b"]]).symbols == ("<pad>", "<unk>", "b"), "the data's own <unk> is the same"


def test_unknown_symbols() -> None:
    v = Vocabulary.build(["ab"])
    assert v.encode("axb") == [2, 1, 3]
    assert "x" not in v
    labels = Vocabulary(["O", "B-x"])
    with pytest.raises(ValueError, match="unknown symbol 'B-y': expected one of O, B-x"):
        labels.encode(["O", "B-y"])
    for wrong in (-1, 2):
        with pytest.raises(IndexError, match=f"from 0 to 1, got {wrong}"):
            labels.decode([wrong])


def test_constructor_is_checked() -> None:
    with pytest.raises(ValueError, match="'a' stands there twice"):
        Vocabulary(["a", "b", "a"])
    with pytest.raises(ValueError, match="padding: '<pad>' is not one of the symbols"):
        Vocabulary(["a"], padding="<pad>")


@given(st.lists(st.text(), min_size=1))
def test_round_trip(texts: list[str]) -> None:
    v = Vocabulary.build(texts)
    same = Vocabulary.of(json.loads(json.dumps(v.state())))
    assert same == v
    assert hash(same) == hash(v)
    for text in texts:
        assert "".join(same.decode(torch.tensor(v.encode(text), dtype=torch.int64))) == text
