# SPDX-License-Identifier: Apache-2.0
"""Text with a label: `text<TAB>label` on each line."""

from pathlib import Path

from rnnfast.tasks.data.files import malformed, read_lines, shown


def read_labelled_text(path: Path) -> list[tuple[str, str]]:
    """(text, label) of each line; the label is what follows the last tab. Blank lines are passed over.

    Raises:
        InputError: the file is missing, empty or not UTF-8; a line has no tab, no text or no label.
    """
    expected = "text, a tab and a label"
    pairs = []
    for number, line in enumerate(read_lines(path, f"lines of {expected}"), 1):
        if not line.strip():
            continue
        text, tab, label = line.rpartition("\t")
        if not tab:
            raise malformed(path, number, expected, f"a line without a tab: {shown(line)}")
        if not text.strip() or not label.strip():
            missing = "text" if not text.strip() else "label"
            raise malformed(path, number, expected, f"no {missing}: {shown(line)}")
        pairs.append((text.strip(), label.strip()))
    return pairs
