# SPDX-License-Identifier: Apache-2.0
"""Peak memory of a training step beyond inputs, outputs and their gradients, each time in a fresh process.

Measured: how far the peak of the resident memory (VmHWM, set back through /proc/self/clear_refs) rises during the first
training step once module, input and output gradient exist, less what remains of it: outputs, states, gradients. The
first step, since what a rival keeps between calls would hide in the second. Before it, a tiny step of the same module
and a product of matrices load code, threads and the library's own buffers, for both rivals alike. glibc is told to give
every block from 64 KB on its own pages, so that what is freed does not count and what is used does; pages of program
code do not count. Noise: about 0.1 MB, since the kernel keeps the counter for each core.
"""

import ctypes
import gc
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from . import rivals
from .cases import Case

PACKAGE = __package__ or "benchmarks"  # in a wheel: rnnfast.benchmarks
ROOT = Path(__file__).resolve().parents[len(PACKAGE.split("."))]  # what Python must find it in
ALLOCATOR = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_MMAP_MAX_": "1000000"}


def unavailable() -> str | None:
    """Why this system cannot measure it, or None."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
        _status()["VmHWM"]
    except (OSError, KeyError) as error:
        return f"the peak of the resident memory cannot be set back here ({error})"
    return None


def huge_pages() -> str:
    """Whether pages of 2 MB are given to all, or on madvise (rnnfast asks for them): it coarsens resident memory."""
    try:
        text = Path("/sys/kernel/mm/transparent_hugepage/enabled").read_text()
    except OSError:
        return "unknown"
    return text.partition("[")[2].partition("]")[0] or text.strip()


def measure(case: Case, threads: int, repeats: int) -> dict[str, list[int]]:
    """Bytes of each rival, one for each repeat. Raises RuntimeError where a process fails or the rivals disagree."""
    results: dict[str, list[int]] = {name: [] for name in rivals.contenders(case.mode)}
    for _ in range(repeats):
        norms = {}
        for rival, values in results.items():
            answer = _child(case, rival, threads)
            values.append(answer["bytes"])
            norms[rival] = answer["norms"]
        for name, found in norms.items():
            for ours, theirs in zip(found, norms["torch"], strict=True):
                if not abs(ours - theirs) <= 1e-4 * theirs:
                    raise RuntimeError(f"{case}: {name} and torch.nn disagree: norms {norms}")
    return results


def _child(case: Case, rival: str, threads: int) -> dict[str, Any]:
    command = [sys.executable, "-m", f"{PACKAGE}.memory", case.cell, *map(str, case.shape), rival, str(threads)]
    environment = {**os.environ, **ALLOCATOR}
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise RuntimeError(f"{case}: the process of {rival} failed:\n{result.stderr}")
    answer: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return answer


def peak_growth(run: Callable[[], list[Any]]) -> tuple[list[Any], int]:
    """(the tensors that run() returned, bytes by which memory peaked during it, less theirs)."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before = _status()
    tensors = run()
    after = _status()
    grown = after["VmHWM"] - before["VmRSS"] - (after["RssFile"] - before["RssFile"])
    return tensors, grown - sum(tensor.nbytes for tensor in tensors)


def _status() -> dict[str, int]:
    lines = Path("/proc/self/status").read_text().splitlines()
    fields = {name: value.split() for name, _, value in (line.partition(":") for line in lines)}
    return {name: int(fields[name][0]) * 1024 for name in ("VmHWM", "VmRSS", "RssFile")}


def _main(cell: str, *numbers_and_rival: str) -> None:
    *sizes, rival, threads = numbers_and_rival
    torch.set_num_threads(int(threads))
    case, tiny = Case(cell, "memory", *map(int, sizes)), Case(cell, "memory", 5, 3, 16, 24)
    square = torch.rand(512, 512)
    square @ square.tanh()
    rivals.call(tiny, rivals.module(tiny, rival), *rivals.data(tiny))()
    tensors, grown = peak_growth(rivals.call(case, rivals.module(case, rival), *rivals.data(case)))
    print(json.dumps({"bytes": grown, "norms": [tensor.double().norm().item() for tensor in tensors]}))


if __name__ == "__main__":
    _main(*sys.argv[1:])
