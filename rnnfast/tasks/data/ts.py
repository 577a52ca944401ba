# SPDX-License-Identifier: Apache-2.0
"""The `.ts` format of the UEA and UCR archives of time series classification: one or more dimensions, equal or unequal
lengths. Missing values (`?`, NaN), time stamps and regression targets are refused: the models have no meaning for them.

    @problemName Example
    @dimensions 2
    @classLabel true left right
    @data
    0.1,0.2,0.3:5,6,7:left
"""

from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from rnnfast.runs import InputError
from rnnfast.tasks.data.files import finite, listed, malformed, read_lines, shown

_FLAGS = ("timestamps", "missing", "univariate", "equallength")


@dataclass(frozen=True)
class SeriesSet:
    """Series with a label each."""

    series: list[Tensor]  # [T_i, F] float32
    labels: list[str]
    declared: tuple[str, ...]  # the labels that the header lists

    @property
    def features(self) -> int:
        """F: dimensions of every series."""
        return self.series[0].shape[1]


@dataclass
class _Header:
    flags: dict[str, bool] = field(default_factory=dict)
    labels: tuple[str, ...] = ()
    dimensions: int | None = None
    length: int | None = None


def read_ts(path: Path) -> SeriesSet:
    """All cases of a `.ts` file.

    Raises:
        InputError: the file is missing, empty or not UTF-8; a header line is not understood; a case has another number
            of dimensions or another length than the header or the first case says, a value that is not a finite
            number, or a label that the header does not list.
    """
    header, series, labels = _Header(), [], []
    inside = False
    for number, line in enumerate(read_lines(path, "a .ts file with @data"), 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        if inside:
            values, label = _case(path, number, text, header)
            series.append(values)
            labels.append(label)
        elif not text.startswith("@"):
            raise malformed(path, number, "a header line (@...) or @data before the cases", shown(text))
        else:
            inside = _header_line(path, number, text, header)
    if not inside:
        raise InputError(f"{path}: expected a line @data, got none")
    if not series:
        raise InputError(f"{path}: expected cases after @data, got none")
    return SeriesSet(series, labels, header.labels)


def _header_line(path: Path, number: int, text: str, header: _Header) -> bool:
    """Takes in a line @...; says whether the cases begin."""
    name, *words = text[1:].split() or [""]
    key = name.lower()
    if key == "data":
        if not header.labels:
            raise malformed(path, number, "@classLabel true and the labels before @data", "none")
        return True
    if key in _FLAGS:
        if [w.lower() for w in words] not in (["true"], ["false"]):
            raise malformed(path, number, f"@{name} true or false", shown(text))
        header.flags[key] = words[0].lower() == "true"
        if header.flags[key] and key in ("timestamps", "missing"):
            what = "time stamps" if key == "timestamps" else "missing values"
            raise malformed(path, number, f"series without {what}", f"@{name} true")
    elif key in ("dimensions", "dimension", "serieslength"):
        if len(words) != 1 or not words[0].isdecimal() or not 0 < int(words[0][:9]) < 10**8:
            raise malformed(path, number, f"@{name} and a positive number", shown(text))
        if key == "serieslength":
            header.length = int(words[0])
        else:
            header.dimensions = int(words[0])
    elif key == "classlabel":
        if len(words) < 2 or words[0].lower() != "true":
            raise malformed(path, number, "@classLabel true and the labels", shown(text))
        header.labels = tuple(words[1:])
    elif key == "targetlabel":
        raise malformed(path, number, "@classLabel true and the labels", "a regression target (@targetLabel)")
    return False


def _case(path: Path, number: int, text: str, header: _Header) -> tuple[Tensor, str]:
    """One case: dimensions with colons between them, the label after the last."""
    *dimensions, label = (part.strip() for part in text.split(":"))
    if not dimensions:
        raise malformed(path, number, "values, a colon and a label", shown(text))
    if label not in header.labels:
        raise malformed(path, number, f"one of the labels {listed(header.labels)}", shown(label))
    expected = 1 if header.flags.get("univariate") else header.dimensions
    if expected is None:
        header.dimensions = expected = len(dimensions)
    if len(dimensions) != expected:
        raise malformed(path, number, f"{expected} dimensions", str(len(dimensions)))
    rows = [_values(path, number, part) for part in dimensions]
    if len({len(row) for row in rows}) != 1:
        lengths = ", ".join(str(len(row)) for row in rows[:8])
        raise malformed(path, number, "dimensions of one length", f"lengths {lengths}")
    if header.flags.get("equallength"):
        header.length = header.length or len(rows[0])
        if len(rows[0]) != header.length:
            raise malformed(path, number, f"{header.length} values (@equalLength true)", str(len(rows[0])))
    return torch.tensor(rows, dtype=torch.float32).t().contiguous(), label


def _values(path: Path, number: int, text: str) -> list[float]:
    values = []
    for part in text.split(","):
        value = finite(part)
        if value is None:
            missing = part.strip() in ("?", "") or part.strip().lower() == "nan"
            got = f"a missing value ({shown(part)}); fill it in first" if missing else shown(part)
            raise malformed(path, number, "finite numbers with commas between them", got)
        values.append(value)
    return values
