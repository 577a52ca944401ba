# SPDX-License-Identifier: Apache-2.0
"""One column of a CSV file with a header line, as a series."""

import csv
import io
from pathlib import Path

from rnnfast.runs import InputError
from rnnfast.tasks.data.files import finite, listed, malformed, read_text, shown


def read_column(path: Path, column: str) -> list[float]:
    """The numbers of the column, from top to bottom.

    Raises:
        InputError: the file is missing, empty or not UTF-8; the header has no such column, or twice; a row is too
            short or its value not a finite number (a gap in a series has to be filled in first); there are no rows.
    """
    text = read_text(path, "a CSV file with a header line")
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    values: list[float] = []
    index = -1
    try:
        for row in reader:
            if not row or not any(field.strip() for field in row):
                continue
            if index < 0:
                names = [field.strip() for field in row]
                if names.count(column) != 1:
                    got = "twice that" if column in names else listed([shown(n) for n in names])
                    raise malformed(path, reader.line_num, f"one column {shown(column)} in the header", got)
                index = names.index(column)
                continue
            field = row[index] if index < len(row) else ""
            value = finite(field)
            if value is None:
                raise malformed(path, reader.line_num, f"a finite number in column {shown(column)}", shown(field))
            values.append(value)
    except csv.Error as error:
        raise malformed(path, reader.line_num, "CSV", f"what cannot be read as such ({error})") from None
    if not values:
        raise InputError(f"{path}: expected rows after the header, got none")
    return values
