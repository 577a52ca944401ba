# SPDX-License-Identifier: Apache-2.0
"""What every reader does first: open, decode, split into lines, and say what is wrong."""

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rnnfast.runs import InputError


def malformed(path: Path, line: int, expected: str, got: str) -> InputError:
    """The error for one line of a file (numbered from 1)."""
    return InputError(f"{path}, line {line}: expected {expected}, got {got}")


def shown(text: str, limit: int = 40) -> str:
    """A piece of input as it stands in a message: quoted, on one line, not endless."""
    return repr(text if len(text) <= limit else text[:limit] + "...")


def read_text(path: Path, expected: str = "text") -> str:
    """The content of a UTF-8 file, newlines as \\n, without a byte order mark.

    Raises:
        InputError: it is missing, unreadable, not UTF-8, or empty.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from None
    except ValueError as error:  # a NUL in the name
        raise InputError(f"{str(path)!r}: {error}") from None
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise malformed(path, line, "UTF-8 text", f"the byte 0x{raw[error.start]:02x}") from None
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if not text.strip():
        raise InputError(f"{path}: expected {expected}, got an empty file")
    return text


def read_lines(path: Path, expected: str) -> list[str]:
    """The lines of a UTF-8 file without their ends; a last empty one does not count. Raises as read_text."""
    lines = read_text(path, expected).split("\n")
    if not lines[-1]:
        lines.pop()
    return lines


def package(name: str, data: str) -> Any:
    """A module of the extra `examples`, imported when its data is asked for.

    Raises:
        InputError: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        top = name.split(".")[0]
        if error.name != top:
            raise
        pip = {"sklearn": "scikit-learn"}.get(top, top)
        raise InputError(f"{data} comes with {pip}, which is not installed: pip install 'rnnfast[examples]'") from None


def finite(text: str) -> float | None:
    """The number that a text says, or None where it says none (NaN and infinities are none, nor is 1_000)."""
    try:
        value = float("nan" if "_" in text else text)
    except ValueError:
        return None
    # float32 is what the models read; a larger number would become infinite there.
    return value if abs(value) < 3e38 else None


def listed(names: Sequence[str], limit: int = 12) -> str:
    """Names for a message."""
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")
