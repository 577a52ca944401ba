# SPDX-License-Identifier: Apache-2.0
"""Figures against cases counted by hand, and against seqeval."""

import pytest
import torch

from rnnfast.tasks import metrics
from rnnfast.tasks.batches import by_budget, by_length, in_order, pad_series, pad_symbols


def test_accuracy_and_confusion() -> None:
    assert metrics.accuracy("abca", "abcb") == 0.75
    assert metrics.confusion("aab", "aba", "ab") == [[1, 1], [1, 0]]


@pytest.mark.parametrize(
    ("a", "b", "distance"),
    [("", "", 0), ("abc", "", 3), ("", "ab", 2), ("kitten", "sitting", 3), ("flaw", "lawn", 2), ("abc", "abc", 0)],
)
def test_edit_distance(a: str, b: str, distance: int) -> None:
    assert metrics.edit_distance(a, b) == metrics.edit_distance(b, a) == distance


def test_error_rates_take_the_nearest_reference() -> None:
    references = {"live": [list("liv"), list("laiv")], "a": [list("a")]}
    # "laif" is one edit from the second reference of four symbols; "a" is right.
    assert metrics.error_rates(references, {"live": list("laif"), "a": list("a")}) == (1 / 5, 1 / 2)
    # Of two equally near references the shorter counts.
    assert metrics.error_rates({"x": [list("ab"), list("abc")]}, {"x": list("ac")}) == (1 / 2, 1.0)


def test_naive_forecasts_and_scale() -> None:
    values = [1.0, 2.0, 3.0, 2.0, 4.0, 6.0]
    assert metrics.seasonal_naive(values, 5, 3) == [2, 4, 6, 2, 4]
    assert metrics.seasonal_naive(values, 2, 1) == [6, 6]
    assert metrics.mase_scale(values, 3) == (1 + 2 + 3) / 3
    assert metrics.mase_scale(values, 1) == (1 + 1 + 1 + 2 + 2) / 5


def test_entity_f1() -> None:
    """One of two entities whole, one cut short, one invented: precision 1/3, recall 1/2."""
    pytest.importorskip("seqeval", reason="seqeval is not installed: pip install 'rnnfast[examples]'")
    wanted = [["B-a", "I-a", "O", "B-b", "I-b", "O"]]
    got = [["B-a", "I-a", "O", "B-b", "O", "B-a"]]
    assert metrics.entity_f1(wanted, got) == pytest.approx(2 * (1 / 3) * (1 / 2) / (1 / 3 + 1 / 2))
    assert metrics.entity_f1([["O"]], [["O"]]) == 0


def test_batches() -> None:
    lengths = [(7 * i) % 23 + 1 for i in range(500)]
    batches = by_length(lengths, 8, seed=3, epoch=0)
    assert sorted(i for b in batches for i in b) == list(range(500))
    assert max(map(len, batches)) == 8
    padded = sum(max(lengths[i] for i in b) * len(b) for b in batches)
    assert padded < 1.1 * sum(lengths)
    assert batches == by_length(lengths, 8, seed=3, epoch=0)
    assert batches != by_length(lengths, 8, seed=3, epoch=1)
    longest = [lengths[b[0]] for b in in_order(lengths, 8)]
    assert longest == sorted(longest, reverse=True)
    assert by_budget([3, 10, 2, 2], 6) == [[1], [0, 2], [3]]


def test_padding() -> None:
    x, lengths = pad_symbols([[5, 6, 7], [8]])
    assert x.tolist() == [[5, 8], [6, 0], [7, 0]]
    assert lengths.tolist() == [3, 1]
    x, lengths = pad_series([torch.ones(2, 3), torch.ones(4, 3)])
    assert x.shape == (4, 2, 3)
    assert x[2:, 0].abs().sum() == 0
