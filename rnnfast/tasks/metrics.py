# SPDX-License-Identifier: Apache-2.0
"""The figures that published work is held against."""

from collections.abc import Mapping, Sequence
from typing import Any

from rnnfast.tasks.data.files import package


def accuracy(wanted: Sequence[Any], got: Sequence[Any]) -> float:
    """The share of equal ones."""
    return sum(a == b for a, b in zip(wanted, got, strict=True)) / max(1, len(wanted))


def confusion(wanted: Sequence[str], got: Sequence[str], labels: Sequence[str]) -> list[list[int]]:
    """Counts [wanted][got] in the order of labels."""
    index = {label: i for i, label in enumerate(labels)}
    counts = [[0] * len(labels) for _ in labels]
    for a, b in zip(wanted, got, strict=True):
        counts[index[a]][index[b]] += 1
    return counts


def entity_f1(wanted: Sequence[Sequence[str]], got: Sequence[Sequence[str]]) -> float:
    """F1 of whole entities in BIO labels, as conlleval counts them (seqeval).

    Raises:
        InputError: seqeval is not installed.
    """
    f1_score = package("seqeval.metrics", "the entity F1").f1_score
    return float(f1_score([list(w) for w in wanted], [list(g) for g in got], zero_division=0))


def edit_distance(a: Sequence[Any], b: Sequence[Any]) -> int:
    """Insertions, deletions and substitutions that lead from a to b (Levenshtein)."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        diagonal, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (x != y))
    return row[-1]


def error_rates(
    references: Mapping[str, Sequence[Sequence[str]]], got: Mapping[str, Sequence[str]]
) -> tuple[float, float]:
    """(symbol error rate, sequence error rate) of outputs against the nearest of each input's listed references.

    The symbol error rate is the sum of edit distances over the sum of those references' lengths.
    """
    edits = symbols = wrong = 0
    for source, listed in references.items():
        distances = [(edit_distance(got[source], reference), len(reference)) for reference in listed]
        distance, length = min(distances)
        edits += distance
        symbols += length
        wrong += distance > 0
    return edits / max(1, symbols), wrong / max(1, len(references))


def seasonal_naive(history: Sequence[float], horizon: int, season: int) -> list[float]:
    """The values of one season before, repeated; season 1 is the naive forecast, the last value."""
    return [history[len(history) - season + h % season] for h in range(horizon)]


def mase_scale(training: Sequence[float], season: int) -> float:
    """The mean absolute error of the seasonal-naive forecast one season ahead within the training part: what MASE
    divides by (Hyndman and Koehler 2006)."""
    errors = [abs(training[i] - training[i - season]) for i in range(season, len(training))]
    return sum(errors) / max(1, len(errors))
