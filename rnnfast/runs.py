# SPDX-License-Identifier: Apache-2.0
"""The folders that runs of `rnnfast demo` and `rnnfast train` leave behind."""

from collections.abc import Iterable
from pathlib import Path

from rnnfast.demo.text import InputError

__all__ = ["CHECKPOINT", "new_folder", "resumed_folder"]

CHECKPOINT = "checkpoint.pt"


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


def resumed_folder(out: Path, name: str | None, task: str = "") -> Path:
    """The named run, or the latest; with a task, the task's latest."""
    if name is not None:
        return out / name
    pattern = f"{task}-*" if task else "*"
    runs = sorted(out.glob(f"{pattern}/{CHECKPOINT}"), key=lambda p: p.stat().st_mtime)
    if not runs:
        raise InputError(f"--resume: there is no run {f'of {task} ' if task else ''}in {out}")
    return runs[-1].parent
