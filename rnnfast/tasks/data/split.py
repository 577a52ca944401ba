# SPDX-License-Identifier: Apache-2.0
"""Training, validation and test part."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch

from rnnfast.runs import InputError

Item = TypeVar("Item")


@dataclass(frozen=True)
class Parts(Generic[Item]):
    """The examples of each part; none is empty."""

    train: list[Item]
    valid: list[Item]
    test: list[Item]
    test_source: Path | None = None  # where the test part was read, for messages about it

    def sizes(self) -> dict[str, int]:
        """Examples in each part."""
        return {"train": len(self.train), "valid": len(self.valid), "test": len(self.test)}


def shuffled(count: int, seed: int) -> list[int]:
    """A permutation of range(count) that depends on the seed only."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed)).tolist()


def stratified(groups: Sequence[str], shares: Sequence[float], seed: int) -> list[list[int]]:
    """Indices cut into parts of these shares, each group (a label) by the same shares as far as it goes.

    The last part takes what rounding leaves over.
    """
    parts: list[list[int]] = [[] for _ in shares]
    for n, group in enumerate(sorted(set(groups))):
        members = [i for i, g in enumerate(groups) if g == group]
        order = [members[i] for i in shuffled(len(members), seed * 1000 + n)]
        begin, reached = 0, 0.0
        for part, share in zip(parts, shares, strict=True):
            reached += share
            end = round(reached / sum(shares) * len(order))
            part += order[begin:end]
            begin = end
    return [sorted(part) for part in parts]


def by_groups(items: Sequence[Item], group: Callable[[Item], str], seed: int, valid: float, test: float) -> Parts[Item]:
    """Parts in which all items of a group (the same file, the same word) are on one side."""
    names = list(dict.fromkeys(group(item) for item in items))
    if len(names) < 3:
        raise InputError(f"expected at least 3 examples to split into training, validation and test, got {len(names)}")
    order = [names[i] for i in shuffled(len(names), seed)]
    n_test, n_valid = max(1, int(len(names) * test)), max(1, int(len(names) * valid))
    side = {n: 2 if i < n_test else 1 if i < n_test + n_valid else 0 for i, n in enumerate(order)}
    found: list[list[Item]] = [[], [], []]
    for item in items:
        found[side[group(item)]].append(item)
    return Parts(found[0], found[1], found[2])


def from_files(
    options: Mapping[str, Any],
    read: Callable[[Path], list[Item]],
    group: Callable[[Item], str] | None = None,
    seed: int = 0,
) -> Parts[Item]:
    """The parts that `data` or `train`, `valid` and `test` (paths, or None) name; what has no file of its own is a
    tenth of the training file.

    Raises:
        InputError: from reading; both or neither of data and train are given; too little to split.
    """
    paths = {part: Path(options[part]) if options.get(part) else None for part in ("data", "train", "valid", "test")}
    main = paths["data"] or paths["train"]
    if main is None or (paths["data"] and paths["train"]):
        raise InputError("expected either --data or --train (with --valid and --test, if there are such files)")
    key = group or (lambda item: str(id(item)))
    files = {part: read(path) for part in ("valid", "test") if (path := paths[part])}
    rest = read(main)
    if len(files) < 2:
        try:
            cut = by_groups(rest, key, seed, 0.1, 0.1)
        except InputError as error:
            raise InputError(f"{main}: {error}") from None
        rest = cut.train + (cut.valid if "valid" in files else []) + (cut.test if "test" in files else [])
        files = {"valid": cut.valid, "test": cut.test} | files
    return Parts(rest, files["valid"], files["test"], paths["test"])
