# SPDX-License-Identifier: Apache-2.0
"""From BIO labels to spans and to a call: {"intent": "flight", "slots": {"toloc.city_name": "Denver"}}."""

from collections.abc import Sequence
from typing import Any, NamedTuple

__all__ = ["Span", "api_call", "spans"]


class Span(NamedTuple):
    """Steps begin up to, not including, end, of one kind."""

    kind: str
    begin: int
    end: int


def spans(labels: Sequence[str]) -> list[Span]:
    """The chunks that BIO labels ("B-city", "I-city", "O") mark, read as conlleval reads them.

    "B-x" begins a chunk; "I-x" goes on with one of kind x, and after anything else begins one.
    """
    found: list[Span] = []
    kind, begin = "", 0
    for i, label in enumerate([*labels, "O"]):
        prefix, _, this = label.partition("-")
        goes_on = prefix == "I" and kind == this and kind != ""
        if kind and not goes_on:
            found.append(Span(kind, begin, i))
            kind = ""
        if this and not goes_on:
            kind, begin = this, i
    return found


def api_call(words: Sequence[str], labels: Sequence[str], intent: str | None = None) -> dict[str, Any]:
    """What a sentence asks for: its intent and what fills the slots.

    Args:
        words: of the sentence.
        labels: their BIO labels.
        intent: of the whole sentence, if known.

    Returns:
        {"intent": intent, "slots": {kind: "words of the span"}}; a kind that occurs several times has a list of them.

    Raises:
        ValueError: not as many labels as words.
    """
    if len(words) != len(labels):
        raise ValueError(f"api_call: labels: expected one for each of {len(words)} words, got {len(labels)}")
    values: dict[str, list[str]] = {}
    for span in spans(labels):
        values.setdefault(span.kind, []).append(" ".join(words[span.begin : span.end]))
    return {"intent": intent, "slots": {kind: v[0] if len(v) == 1 else v for kind, v in values.items()}}
