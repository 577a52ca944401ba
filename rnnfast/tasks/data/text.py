# SPDX-License-Identifier: Apache-2.0
"""Text for language models: characters of files, words of one sentence a line, or what every Python carries."""

from collections.abc import Sequence
from pathlib import Path

from rnnfast.demo.text import read_text as pydoc_or_file
from rnnfast.runs import InputError
from rnnfast.tasks.data.files import read_lines, read_text

UNKNOWN = "<unk>"
END = "</s>"


def pydoc_topics() -> str:
    """The topics of Python's own documentation, about 460,000 characters."""
    return pydoc_or_file(None)


def read_characters(paths: Sequence[Path]) -> str:
    """The text of the files, one after another.

    Raises:
        InputError: one is missing, empty or not UTF-8.
    """
    return "\n\n".join(read_text(path) for path in paths)


def read_sentences(paths: Sequence[Path]) -> list[list[str]]:
    """The words of each line that has any; words are what white space separates.

    Raises:
        InputError: a file is missing, empty or not UTF-8.
    """
    lines = [line for path in paths for line in read_lines(path, "sentences, one a line, words separated by spaces")]
    return [words for line in lines if (words := line.split())]


def split_text(text: str, held_out: float = 0.1) -> tuple[str, str]:
    """(the first part, the last `held_out` of it).

    Raises:
        InputError: fewer than 20 characters.
    """
    if len(text) < 20:
        raise InputError(f"expected at least 20 characters of text, got {len(text)}")
    cut = len(text) - max(2, int(len(text) * held_out))
    return text[:cut], text[cut:]
