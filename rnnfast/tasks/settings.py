# SPDX-License-Identifier: Apache-2.0
"""What decides a run's numbers, and what a task must say for the training loop to run it."""

import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from rnnfast.init import Init
from rnnfast.runs import InputError
from rnnfast.tasks.arguments import INIT_FORM, INITS


@dataclass(frozen=True)
class Settings:
    """Everything that decides a run's numbers; a resumed run has the same."""

    cell: str = "lstm"
    backend: str = "rnnfast"
    init: str | None = None
    hidden: int = 128
    layers: int = 1
    embedding: int = 64
    dropout: float = 0.0
    seed: int = 0
    epochs: int = 10
    batch: int = 32
    learning_rate: float = 3e-3
    clip: float = 1.0  # of the norm of all gradients
    weight_decay: float = 0.0
    patience: int = 10  # evaluations without a better one
    options: dict[str, Any] = field(default_factory=dict)  # the task's own


class Task(ABC):
    """One task: its data, its model, its figures. The constructor reads the data and seeds the model.

    Batches are described by anything small (indices, positions): `plan` gives those of an epoch, `loss` computes one.
    """

    name: ClassVar[str]
    metric: str  # of the validation part
    higher_is_better: ClassVar[bool]
    item: str  # what the progress bar counts
    defaults: ClassVar[Mapping[str, Any]]
    model: Any  # a rnnfast.models.Model

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    @abstractmethod
    def plan(self, epoch: int) -> Sequence[Any]:
        """The epoch's batches, in order; the same for the same seed and epoch."""

    @abstractmethod
    def items(self) -> int:
        """Items of an epoch, for the progress bar."""

    @abstractmethod
    def loss(self, batch: Any) -> tuple[Tensor, int]:
        """The batch's loss, for backward(), and its items."""

    @abstractmethod
    def validate(self) -> float:
        """The metric on the validation part."""

    @abstractmethod
    def test(self, folder: Path) -> dict[str, Any]:
        """Figures of the test part, "metric" among them; pictures go to the folder."""

    @abstractmethod
    def data(self) -> dict[str, Any]:
        """What the data is, in JSON values; a run goes on only on the same."""

    @abstractmethod
    def summary(self, results: Mapping[str, Any]) -> list[str]:
        """Lines that close the run, the most important last."""

    def carry(self) -> list[Tensor]:
        """What flows from batch to batch beside the parameters."""
        return []

    def set_carry(self, carry: list[Tensor]) -> None:
        """Takes up what carry() gave."""
        if carry:
            raise ValueError(f"{self.name}: expected nothing to carry, got {len(carry)} tensors")


def fingerprint(pieces: Iterable[str | Tensor]) -> int:
    """A number that depends on all characters and values, and on where one piece ends (CRC-32)."""
    found = 0
    for piece in pieces:
        content = piece.encode() if isinstance(piece, str) else piece.contiguous().numpy().tobytes()
        found = zlib.crc32(content, zlib.crc32(len(content).to_bytes(8, "little"), found))
    return found


def generator(*numbers: int) -> torch.Generator:
    """Random numbers for a purpose: the same numbers give the same."""
    seed = 0
    for number in numbers:
        seed = (seed * 1_000_003 + number + 1) % 2**62
    return torch.Generator().manual_seed(seed)


def initialiser(text: str | None, cell: str) -> Init:
    """What `--init NAME` or `--init NAME=VALUE` means to the recurrent module (`rnnfast.init`), or None.

    Raises:
        InputError: an unknown name; a value that is no number; chrono without one; a model without recurrence.
    """
    if text is None:
        return None
    if cell == "none":
        raise InputError(f"--init {text}: expected a recurrent --cell, got none")
    name, sign, value = text.partition("=")
    if name not in INITS or (name == "chrono" and not sign):
        raise InputError(f"--init {text}: expected {INIT_FORM}")
    if not sign:
        return name
    try:
        return name, float(value)
    except ValueError:
        raise InputError(f"--init {text}: expected a number after {name}=, got '{value}'") from None
