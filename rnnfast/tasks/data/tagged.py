# SPDX-License-Identifier: Apache-2.0
"""Sentences with a label for each token: CoNLL-U, two-column BIO."""

import re
from dataclasses import dataclass
from pathlib import Path

from rnnfast.runs import InputError
from rnnfast.tasks.data.files import listed, malformed, read_lines, shown

CONLLU_COLUMNS = ("ID", "FORM", "LEMMA", "UPOS", "XPOS", "FEATS", "HEAD", "DEPREL", "DEPS", "MISC")
_ID = re.compile(r"[0-9]+([-.][0-9]+)?\Z")
_BIO = re.compile(r"O|[BI]-.+")


@dataclass(frozen=True)
class Tagged:
    """One sentence; tokens and labels are as many."""

    tokens: list[str]
    labels: list[str]
    intent: str | None = None  # of the whole sentence, where the data has one


def read_conllu(path: Path, column: str = "UPOS") -> list[Tagged]:
    """FORM and another column of every word. Comments, ranges of multiword tokens (`1-2`) and empty nodes (`1.1`) are
    passed over, as the format means them.

    Raises:
        InputError: the file is missing, empty or not UTF-8; there is no such column; a line has not ten fields, or no
            ID or FORM.
    """
    if column.upper() not in CONLLU_COLUMNS:
        raise InputError(f"--column {column}: expected one of {', '.join(CONLLU_COLUMNS)}")
    index = CONLLU_COLUMNS.index(column.upper())
    expected = "CoNLL-U: ten fields with tabs between them"
    sentences: list[Tagged] = []
    tokens: list[str] = []
    labels: list[str] = []
    for number, line in enumerate([*read_lines(path, expected), ""], 1):
        if not line.strip():
            if tokens:
                sentences.append(Tagged(tokens, labels))
                tokens, labels = [], []
            continue
        if line.startswith("#"):
            continue
        fields = line.split("\t")
        if len(fields) != 10:
            raise malformed(path, number, expected, f"{len(fields)}: {shown(line)}")
        if not _ID.match(fields[0]):
            raise malformed(path, number, "a word's number as ID", shown(fields[0]))
        if not fields[1].strip() or not fields[index].strip():
            what = "FORM" if not fields[1].strip() else column.upper()
            raise malformed(path, number, f"a value in {what}", "an empty field")
        if fields[0].isdecimal():
            tokens.append(fields[1])
            labels.append(fields[index])
    return _some(path, sentences)


def read_bio(path: Path) -> list[Tagged]:
    """Token and label on each line (a tab or spaces between them), blank lines between sentences; labels are O, B-TYPE
    and I-TYPE.

    Raises:
        InputError: the file is missing, empty or not UTF-8; a line has not two fields; a label of another form.
    """
    expected = "a token and a label"
    sentences: list[Tagged] = []
    tokens: list[str] = []
    labels: list[str] = []
    for number, line in enumerate([*read_lines(path, f"lines of {expected}"), ""], 1):
        if not line.strip():
            if tokens:
                sentences.append(Tagged(tokens, labels))
                tokens, labels = [], []
            continue
        fields = [f.strip() for f in line.split("\t")] if "\t" in line else line.split()
        if len(fields) != 2 or not all(fields):
            raise malformed(path, number, expected, f"{len(fields)} fields: {shown(line)}")
        check_bio(path, number, fields[1])
        tokens.append(fields[0])
        labels.append(fields[1])
    return _some(path, sentences)


def check_bio(path: Path, number: int, label: str) -> None:
    """Raises InputError for a label that is not O, B-TYPE or I-TYPE."""
    if not _BIO.fullmatch(label):
        raise malformed(path, number, "a label O, B-TYPE or I-TYPE", shown(label))


def check_labels(path: Path, sentences: list[Tagged], known: list[str]) -> None:
    """Raises InputError for the first label that is not among the known ones (those of the training part)."""
    names = set(known)
    for i, sentence in enumerate(sentences, 1):
        for label in sentence.labels:
            if label not in names:
                raise InputError(
                    f"{path}, sentence {i}: expected a label of the training part ({listed(known)}), got {shown(label)}"
                )


def _some(path: Path, sentences: list[Tagged]) -> list[Tagged]:
    if not sentences:
        raise InputError(f"{path}: expected sentences, got none")
    return sentences
