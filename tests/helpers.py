# SPDX-License-Identifier: Apache-2.0
"""What the tests share: the error bound, bitwise equality, the choice of instruction set and threads."""

import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from rnnfast import _C

ISAS = _C.isas_available()


@contextmanager
def machine(isa: str = "", threads: int = 2) -> Iterator[None]:
    """Runs the block on one instruction set and thread count."""
    before = torch.get_num_threads()
    _C.set_isa(isa)
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        _C.set_isa("")
        torch.set_num_threads(before)


def interrupted(command: list[str], written: Path, **options) -> tuple[int, str]:
    """Ctrl-C to a process once a file is there: its exit code, and what it says on stderr."""
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    process = subprocess.Popen(command, text=True, **pipes, **options)
    deadline = time.monotonic() + 60
    while not written.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    return process.returncode, stderr


def _first_bad(bad: np.ndarray) -> tuple[int, ...]:
    return tuple(int(i) for i in np.argwhere(bad)[0])


def assert_within_bound(
    name: str, ours: Tensor, torchs: list[Tensor], reference: np.ndarray, where: str, eps: float | None = None
) -> None:
    """max|ours - ref| <= 2 max|torch - ref| + 8 eps max|ref|, with ref in float64 (docs/architecture.md, "Numbers").

    eps: of the numbers that are multiplied, by default the dtype's.
    """
    assert tuple(ours.shape) == reference.shape, f"{where}: {name}: shape {tuple(ours.shape)}, not {reference.shape}"
    if reference.size == 0:
        return
    got = ours.detach().double().numpy()
    error = np.abs(got - reference)
    torch_error = max(np.abs(t.detach().double().numpy() - reference).max() for t in torchs)
    eps = torch.finfo(ours.dtype).eps if eps is None else eps
    bound = 2 * torch_error + 8 * eps * np.abs(reference).max()
    bad = ~(error <= bound)  # also catches NaN
    if bad.any():
        at = _first_bad(bad)
        raise AssertionError(
            f"{where}: {name}: {bad.sum()} of {bad.size} beyond the bound {bound:.3e}; first at {at}: "
            f"got {got[at]!r}, expected {reference[at]!r}; worst error {np.nanmax(error):.3e}"
        )


def assert_bitwise_equal(name: str, a: Tensor, b: Tensor, where: str = "") -> None:
    """Every bit the same; prints the first coordinate that differs."""
    assert a.shape == b.shape, f"{where}: {name}: shapes {tuple(a.shape)} and {tuple(b.shape)}"
    assert a.dtype == b.dtype, f"{where}: {name}: dtypes {a.dtype} and {b.dtype}"
    bits = {2: torch.int16, 4: torch.int32, 8: torch.int64}[a.element_size()]
    differ = (a.detach().contiguous().view(bits) != b.detach().contiguous().view(bits)).numpy()
    if differ.any():
        at = _first_bad(differ)
        raise AssertionError(f"{where}: {name}: differs at {at}: {a[at].item()!r} and {b[at].item()!r}")
