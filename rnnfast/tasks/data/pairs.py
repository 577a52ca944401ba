# SPDX-License-Identifier: Apache-2.0
"""Input and output sequences: `source<TAB>target` on each line."""

from pathlib import Path

from rnnfast.tasks.data.files import malformed, read_lines, shown


def read_pairs(path: Path) -> list[tuple[str, str]]:
    """(source, target) of each line; a source may stand on several lines, with other targets. Blank lines are passed
    over.

    Raises:
        InputError: the file is missing, empty or not UTF-8; a line has not one tab, or an empty side.
    """
    expected = "source, one tab, target"
    pairs = []
    for number, line in enumerate(read_lines(path, f"lines of {expected}"), 1):
        if not line.strip():
            continue
        fields = line.split("\t")
        if len(fields) != 2:
            raise malformed(path, number, expected, f"{len(fields) - 1} tabs: {shown(line)}")
        source, target = (field.strip() for field in fields)
        if not source or not target:
            raise malformed(path, number, expected, f"no {'target' if source else 'source'}: {shown(line)}")
        pairs.append((source, target))
    return pairs
