# SPDX-License-Identifier: Apache-2.0
"""The demo's text: what every Python carries, or a file; and what other means need for it."""

import gzip
import lzma
import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from rnnfast.runs import InputError

MIN_CHARACTERS = 2000
HELD_OUT = 0.1  # the last tenth


def read_text(path: Path | None) -> str:
    """The text of a UTF-8 file, or without one the topics of Python's own documentation."""
    if path is None:
        from pydoc_data.topics import topics

        text = "\n\n".join(topics.values())
    else:
        try:
            text = path.read_text(encoding="utf-8")
        except OSError as error:
            raise InputError(f"--text {path}: {error.strerror or error}") from None
        except UnicodeDecodeError as error:
            raise InputError(f"--text {path}: expected UTF-8 text, got an invalid byte at {error.start}") from None
    if len(text) < MIN_CHARACTERS:
        raise InputError(f"--text {path}: expected at least {MIN_CHARACTERS} characters, got {len(text)}")
    return text


@dataclass(frozen=True)
class Corpus:
    """Training and held-out text as symbols. Symbol 0 stands for characters that training never saw."""

    characters: str  # symbol i + 1 is characters[i]
    train: Tensor  # int64
    held_out: Tensor
    held_out_text: str

    @classmethod
    def of(cls, text: str) -> "Corpus":
        """Splits off the last tenth; the vocabulary comes from the rest."""
        cut = len(text) - int(len(text) * HELD_OUT)
        characters = "".join(sorted(set(text[:cut])))
        corpus = cls(characters, torch.empty(0), torch.empty(0), text[cut:])
        return cls(characters, corpus.encode(text[:cut]), corpus.encode(text[cut:]), text[cut:])

    @property
    def symbols(self) -> int:
        """Size of the vocabulary, the unknown symbol included."""
        return len(self.characters) + 1

    def encode(self, text: str) -> Tensor:
        """Characters to symbols."""
        index = {c: i + 1 for i, c in enumerate(self.characters)}
        return torch.tensor([index.get(c, 0) for c in text], dtype=torch.int64)

    def decode(self, symbols: Tensor) -> str:
        """Symbols to characters."""
        return "".join("\N{REPLACEMENT CHARACTER}" if s == 0 else self.characters[s - 1] for s in symbols.tolist())


def unigram_bits(train: Tensor, held_out: Tensor, symbols: int) -> float:
    """Bits per character on held-out text of the training part's character frequencies (add-one smoothed)."""
    counts = torch.bincount(train, minlength=symbols).double() + 1
    log_p = torch.log2(counts / counts.sum())
    return -log_p[held_out].mean().item()


def entropy_bits(text: str) -> float:
    """Entropy of a text's own character frequencies, in bits per character."""
    n = len(text)
    return -sum(c / n * math.log2(c / n) for c in Counter(text).values())


def compressed_bits(text: str) -> dict[str, float]:
    """Bits per character that gzip and xz, at their strongest, need for this text alone."""
    raw = text.encode()
    sizes = {
        "gzip": len(gzip.compress(raw, 9)),
        "xz": len(lzma.compress(raw, preset=9 | lzma.PRESET_EXTREME)),
    }
    return {name: 8 * size / len(text) for name, size in sizes.items()}


def streams(symbols: Tensor, batch: int) -> Tensor:
    """Cuts a text into `batch` streams that run side by side: [n, B], read downwards."""
    n = symbols.numel() // batch
    return symbols[: n * batch].view(batch, n).t().contiguous()
