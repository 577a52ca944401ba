# SPDX-License-Identifier: Apache-2.0
"""Readers on any content: a result or the documented error, never anything else."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rnnfast.runs import InputError
from rnnfast.tasks.data.python_source import classes_of
from rnnfast.tasks.data.slots import read_slots
from rnnfast.tasks.data.tagged import Tagged
from tests.tasks.test_readers import CONLLU, READERS, TS

# Pieces that mean something to one reader or another, so that examples get past the first check.
PIECES = (
    *("@data", "@classLabel true a b", "@univariate true", "@equalLength true", "@dimensions 2", "@seriesLength 3"),
    *("a", "b", "1", "2.5", "-3e1", "?", "nan", "inf", "1e39", "1_0", ":", ",", "\t", "\n", "\r\n", " ", '"', "'", "#"),
    *("B-x", "I-x", "O", "1-2", "1.1", "_", "1\tw\tw\tN\t_\t_\t0\tr\t_\t_", "sold", "day,sold"),
    *("def f(", ")", "\\", "'''", "f'{", "}", "0x", "\x00", "\f", "\u2028", "\x85", "\ufeff", "\U0001d518"),
)
TEXTS = st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=4)), max_size=30).map("".join)
CONTENTS = st.one_of(
    TEXTS.map(lambda s: s.encode("utf-8", "surrogatepass")),
    TEXTS.map(lambda s: (TS + s).encode("utf-8", "replace")),
    TEXTS.map(lambda s: (CONLLU + s).encode("utf-8", "replace")),
    TEXTS.map(lambda s: ("day,sold\n" + s).encode("utf-8", "replace")),
    st.binary(max_size=60),
)
FUZZ = settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def result(reader: Callable[[Path], Any], path: Path) -> tuple[Any, str | None]:
    """What the reader gives, or the message of the documented error."""
    try:
        return reader(path), None
    except InputError as error:
        return None, str(error)


@pytest.mark.parametrize("reader", READERS)
@FUZZ
@given(content=CONTENTS)
def test_reader(reader: str, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    found, message = result(READERS[reader], path)
    assert message is None or ("\n" not in message and str(path) in message)
    if isinstance(found, list) and found and isinstance(found[0], Tagged):
        for sentence in found:
            assert len(sentence.tokens) == len(sentence.labels) > 0
            assert all(sentence.tokens)


@FUZZ
@given(contents=st.tuples(CONTENTS, CONTENTS, CONTENTS))
def test_slots(contents: tuple[bytes, bytes, bytes], tmp_path: Path) -> None:
    for name, content in zip(("seq.in", "seq.out", "label"), contents, strict=True):
        (tmp_path / name).write_bytes(content)
    found, message = result(read_slots, tmp_path)
    assert message is None or "\n" not in message
    for sentence in found or []:
        assert len(sentence.tokens) == len(sentence.labels) > 0


@FUZZ
@given(source=TEXTS)
def test_python_classes_cover_every_character(source: str) -> None:
    with suppress(SyntaxError):
        assert len(classes_of(source)) == len(source)
