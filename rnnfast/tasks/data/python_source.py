# SPDX-License-Identifier: Apache-2.0
"""Python source, each character labelled with the class of its token: a syntax highlighter's training data."""

import io
import keyword
import sysconfig
import tokenize
from itertools import accumulate
from pathlib import Path

from rnnfast.runs import InputError
from rnnfast.tasks.data.files import read_text
from rnnfast.tasks.data.tagged import Tagged

CLASSES = ("keyword", "name", "number", "string", "comment", "operator", "whitespace")
_STRINGS = {
    getattr(tokenize, name)
    for name in (
        "STRING",
        "FSTRING_START",
        "FSTRING_MIDDLE",
        "FSTRING_END",
        "TSTRING_START",
        "TSTRING_MIDDLE",
        "TSTRING_END",
    )
    if hasattr(tokenize, name)
}
_SILENT = {tokenize.NEWLINE, tokenize.NL, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER, tokenize.ENCODING}


def classes_of(source: str) -> list[str]:
    """A class for each character of a source (lines end with \\n).

    Raises:
        SyntaxError: it is no Python that `tokenize` understands.
    """
    starts = list(accumulate((len(line) + 1 for line in source.split("\n")), initial=0))
    labels = ["whitespace" if c.isspace() else "operator" for c in source]  # a backslash at a line's end: operator
    try:
        for token in tokenize.generate_tokens(io.StringIO(source).readline):
            label = _class(token)
            if label is None:
                continue
            begin, end = (starts[row - 1] + column for row, column in (token.start, token.end))
            labels[begin:end] = [label] * (min(end, len(source)) - begin)
    except (tokenize.TokenError, ValueError, IndexError) as error:
        raise SyntaxError(str(error)) from None
    return labels


def _class(token: tokenize.TokenInfo) -> str | None:
    """What it is to the highlighter; None where the characters speak for themselves."""
    if token.type in _STRINGS:
        return "string"
    if token.type in _SILENT or token.string.isspace():
        return None
    if token.type == tokenize.NAME:
        return "keyword" if keyword.iskeyword(token.string) else "name"
    return {tokenize.NUMBER: "number", tokenize.COMMENT: "comment"}.get(token.type, "operator")


def read_python(path: Path) -> Tagged:
    """A file's characters and their classes.

    Raises:
        InputError: it is missing, empty, not UTF-8, or not Python that this interpreter's `tokenize` understands.
    """
    source = read_text(path, "Python source")
    try:
        return Tagged(list(source), classes_of(source))
    except SyntaxError as error:
        line = error.lineno or 1
        raise InputError(f"{path}, line {line}: expected Python source, got {error.msg}") from None


def standard_library() -> list[Path]:
    """The modules of the standard library's own folder, sorted: about 170 files."""
    return sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))


def library_sources(limit: int | None = None) -> list[Tagged]:
    """The library's modules that are UTF-8 and tokenize, at most `limit`.

    Raises:
        InputError: this Python has no sources of its library.
    """
    found = []
    for path in standard_library():
        try:
            found.append(read_python(path))
        except InputError:  # a file of another encoding, or one without a line
            continue
        if len(found) == limit:
            break
    if not found:
        raise InputError(f"{sysconfig.get_path('stdlib')}: expected the standard library's sources, got none")
    return found
