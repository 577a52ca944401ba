# SPDX-License-Identifier: Apache-2.0
"""What runs of `rnnfast demo` and `rnnfast train` share: bad input, Ctrl-C, and the folders that they leave behind."""

import signal
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

__all__ = ["CHECKPOINT", "InputError", "Interrupt", "Stopped", "check_same", "new_folder", "resumed_folder"]

CHECKPOINT = "checkpoint.pt"


class InputError(Exception):
    """A bad argument or file; the message is one line for the user."""


class Interrupt:
    """Turns Ctrl-C into a request that the training loop sees between two updates, so no update is lost."""

    def __init__(self) -> None:
        self.asked = False

    def __enter__(self) -> "Interrupt":
        self._before = signal.signal(signal.SIGINT, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGINT, self._before)

    def _handle(self, _signal: int, _frame: FrameType | None) -> None:
        if self.asked:  # twice: the user means it
            raise KeyboardInterrupt
        self.asked = True


class Stopped(Exception):
    """Ctrl-C during training."""


def new_folder(out: Path, name: str | None, unnamed: Iterable[str]) -> Path:
    """OUT/NAME, made; without a name the first of `unnamed` that is free. Never an existing run's.

    Raises:
        InputError: the run exists, or the folder cannot be made.
    """
    folder = out / name if name is not None else next(f for n in unnamed if not (f := out / n).exists())
    if (folder / CHECKPOINT).exists():
        raise InputError(f"--name {name}: this run exists; add --resume to go on with it, or choose another name")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--out {out}: cannot make {folder} ({error.strerror})") from None
    return folder


def resumed_folder(out: Path, name: str | None, kind: str) -> Path:
    """The named run, or the latest whose name begins with its kind (a task, or "demo"), as unnamed ones do.

    Raises:
        InputError: there is none.
    """
    if name is not None:
        return out / name
    runs = sorted(out.glob(f"{kind}-*/{CHECKPOINT}"), key=lambda p: p.stat().st_mtime)
    if not runs:
        raise InputError(f"--resume: there is no run of {kind} in {out}, unless one of another name (--name)")
    return runs[-1].parent


def check_same(folder: Path, given: Mapping[str, Any], saved: Mapping[str, Any], may_change: str) -> None:
    """Compares what the command line says beside --resume with what the run was started with.

    Args:
        folder: of the run, for the message.
        given: settings from the command line, only those that it names.
        saved: the run's; None, or no value, stands for the default.
        may_change: the options that are not among `given`, for the message.

    Raises:
        InputError: some differ; names them with both values.
    """
    differences = [
        f"{name} {value} where it has {'the default' if saved.get(name) is None else saved[name]}"
        for name, value in given.items()
        if value != saved.get(name)
    ]
    if differences:
        raise InputError(
            f"--resume {folder}: expected the run's own settings, got {', '.join(differences)}; "
            f"only {may_change} may change"
        )
