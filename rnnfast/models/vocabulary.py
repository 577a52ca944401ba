# SPDX-License-Identifier: Apache-2.0
"""Symbols (characters, words, labels) and the numbers that stand for them."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

__all__ = ["Vocabulary"]

PADDING, UNKNOWN, START, END = "<pad>", "<unk>", "<s>", "</s>"


class Vocabulary:
    """An ordered set of symbols; a symbol's id is its place.

    Args:
        symbols: all of them, special ones included, no two the same.
        padding: the symbol that fills up short samples, or None.
        unknown: the symbol that stands for all that are not in the set, or None: then those are errors.

    Raises:
        ValueError: a symbol twice; padding or unknown are not among the symbols.
    """

    def __init__(self, symbols: Iterable[str], padding: str | None = None, unknown: str | None = None) -> None:
        self.symbols = tuple(symbols)
        self.padding, self.unknown = padding, unknown
        self._ids = {symbol: i for i, symbol in enumerate(self.symbols)}
        if len(self._ids) != len(self.symbols):
            twice = next(s for s, n in Counter(self.symbols).items() if n > 1)
            raise ValueError(f"Vocabulary: symbols: {twice!r} stands there twice")
        for role, symbol in (("padding", padding), ("unknown", unknown)):
            if symbol is not None and symbol not in self._ids:
                raise ValueError(f"Vocabulary: {role}: {symbol!r} is not one of the symbols")

    @classmethod
    def build(
        cls,
        sequences: Iterable[Iterable[str]],
        *,
        min_count: int = 1,
        max_size: int | None = None,
        padding: str | None = PADDING,
        unknown: str | None = UNKNOWN,
        special: Sequence[str] = (),
    ) -> "Vocabulary":
        """The vocabulary of some data: padding, unknown, special symbols, then what occurs, the most frequent first.

        Args:
            sequences: of symbols (a text's characters, sentences of words, ...).
            min_count: rarer symbols are left out.
            max_size: at most so many symbols in all.
            padding, unknown, special: symbols that stand first, at ids 0, 1, ...; padding and unknown may be None.
        """
        first = [s for s in (padding, unknown, *special) if s is not None]
        counts = Counter(symbol for sequence in sequences for symbol in sequence)
        kept = [s for s, n in sorted(counts.items(), key=lambda item: (-item[1], item[0])) if n >= min_count]
        symbols = first + [s for s in kept if s not in first]
        return cls(symbols if max_size is None else symbols[: max(max_size, len(first))], padding, unknown)

    def __len__(self) -> int:
        return len(self.symbols)

    def __contains__(self, symbol: object) -> bool:
        return symbol in self._ids

    def __getitem__(self, symbol: str) -> int:
        """A symbol's id; of the unknown symbol where it is not known. ValueError where there is none."""
        found = self._ids.get(symbol)
        if found is None:
            if self.unknown is None:
                shown = ", ".join(self.symbols[:8]) + (", ..." if len(self) > 8 else "")
                raise ValueError(f"unknown symbol {symbol!r}: expected one of {shown}")
            return self._ids[self.unknown]
        return found

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Vocabulary) and self.state() == other.state()

    def __hash__(self) -> int:
        return hash((self.symbols, self.padding, self.unknown))

    def __repr__(self) -> str:
        return f"Vocabulary({len(self)} symbols, padding={self.padding!r}, unknown={self.unknown!r})"

    @property
    def padding_id(self) -> int | None:
        """The id of the padding symbol."""
        return None if self.padding is None else self._ids[self.padding]

    @property
    def unknown_id(self) -> int | None:
        """The id of the unknown symbol."""
        return None if self.unknown is None else self._ids[self.unknown]

    def encode(self, sequence: Iterable[str]) -> list[int]:
        """Symbols to ids. ValueError for an unknown symbol where the vocabulary has none for those."""
        return [self[symbol] for symbol in sequence]

    def decode(self, ids: Iterable[int]) -> list[str]:
        """Ids to symbols (also of a tensor of one dimension).

        Raises:
            IndexError: an id outside the vocabulary.
        """
        out = []
        for i in ids:
            if not 0 <= int(i) < len(self.symbols):
                raise IndexError(f"Vocabulary.decode: expected ids from 0 to {len(self) - 1}, got {int(i)}")
            out.append(self.symbols[int(i)])
        return out

    def state(self) -> dict[str, Any]:
        """JSON values, for :meth:`of`."""
        return {"symbols": list(self.symbols), "padding": self.padding, "unknown": self.unknown}

    @classmethod
    def of(cls, state: Mapping[str, Any]) -> "Vocabulary":
        """The vocabulary that `state()` described."""
        return cls(state["symbols"], state["padding"], state["unknown"])
