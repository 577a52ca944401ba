# SPDX-License-Identifier: Apache-2.0
"""Slot filling: a folder with seq.in (a sentence a line), seq.out (its BIO labels) and label (its intent), as ATIS and
SNIPS are passed around; or folders train, valid (or dev) and test of that kind."""

from pathlib import Path

from rnnfast.runs import InputError
from rnnfast.tasks.data.files import malformed, read_lines
from rnnfast.tasks.data.tagged import Tagged, check_bio

FILES = ("seq.in", "seq.out", "label")


def read_slots(folder: Path) -> list[Tagged]:
    """The sentences of one such folder.

    Raises:
        InputError: a file is missing, empty or not UTF-8; the files differ in lines, or a line in tokens; an empty
            sentence; a label that is not O, B-TYPE or I-TYPE.
    """
    lines = {name: read_lines(folder / name, "a sentence a line") for name in FILES}
    counts = {name: len(found) for name, found in lines.items()}
    if len(set(counts.values())) != 1:
        found = ", ".join(f"{name} {count}" for name, count in counts.items())
        raise InputError(f"{folder}: expected as many lines in each of its files, got {found}")
    sentences = []
    for number, (words, slots, intent) in enumerate(zip(*lines.values(), strict=True), 1):
        tokens, labels = words.split(), slots.split()
        if not tokens:
            raise malformed(folder / "seq.in", number, "a sentence", "an empty line")
        if len(labels) != len(tokens):
            raise malformed(folder / "seq.out", number, f"{len(tokens)} labels, one a token", str(len(labels)))
        if not intent.strip():
            raise malformed(folder / "label", number, "an intent", "an empty line")
        for label in labels:
            check_bio(folder / "seq.out", number, label)
        sentences.append(Tagged(tokens, labels, intent.strip()))
    return sentences


def is_slot_folder(folder: Path) -> bool:
    """Whether it holds the three files, or a folder train that does."""
    return any((place / "seq.in").exists() for place in (folder, folder / "train"))


def part_folders(folder: Path) -> dict[str, Path]:
    """{"train": ..., "valid": ..., "test": ...} as far as they are there; a bare folder is all training."""
    if (folder / "seq.in").exists():
        return {"train": folder}
    names = {"train": ("train",), "valid": ("valid", "dev"), "test": ("test",)}
    found = {part: folder / n for part, options in names.items() for n in options if (folder / n / "seq.in").exists()}
    if "train" not in found:
        raise InputError(f"{folder}: expected {', '.join(FILES)}, or folders train, valid and test with them")
    return found
