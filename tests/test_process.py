# SPDX-License-Identifier: Apache-2.0
"""Threads, forks and environment: right and without a hang in every process that users make."""

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

import rnnfast
from tests.helpers import ISAS, assert_bitwise_equal

CALL = """
import torch, rnnfast
torch.manual_seed(0)
m = rnnfast.LSTM(64, 96)
x = torch.randn(20, 8, 64, requires_grad=True)
y, _ = m(x)
y.sum().backward()
"""


def run(code: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("isa", ISAS)
def test_environment_chooses_the_isa(isa: str) -> None:
    result = run("import rnnfast; print(rnnfast.ops._C.isa())", RNNFAST_ISA=isa)
    assert result.stdout.strip() == isa, result.stderr


def test_unknown_isa() -> None:
    result = run("import rnnfast", RNNFAST_ISA="nonsense")
    assert result.returncode != 0
    assert f"expected one of {', '.join(ISAS)} on this machine, got 'nonsense'" in result.stderr


@pytest.mark.parametrize("threads", ["1", "2", "5"])
def test_omp_num_threads(threads: str) -> None:
    code = CALL + "print(rnnfast.ops._C.threads(), torch.get_num_threads(), y.sum().item())"
    result = run(code, OMP_NUM_THREADS=threads)
    ours, torchs, value = result.stdout.split()
    assert ours == torchs
    assert float(value) == pytest.approx(float(run(CALL + "print(y.sum().item())").stdout), rel=1e-5)


def test_fork() -> None:
    """libgomp's pool does not survive a fork: the child runs on one thread, and says so."""
    code = (
        CALL
        + """
import os, sys
want = y.detach().clone()
pid = os.fork()
if pid == 0:
    with torch.no_grad():
        same = torch.allclose(m(x)[0], want)
    text = str(rnnfast.explain(m, x))
    os._exit(0 if same and "child of a fork" in text else 7)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
    )
    result = run(code)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_data_loader_worker(start: str, tmp_path: Path) -> None:
    script = tmp_path / "loader.py"  # spawn imports the script again
    script.write_text(
        """
import sys, torch, rnnfast
class Data(torch.utils.data.Dataset):
    def __init__(self):
        torch.manual_seed(0)
        self.m = rnnfast.LSTM(32, 64)
        with torch.no_grad(): self.m(torch.ones(50, 8, 32))
    def __len__(self): return 4
    def __getitem__(self, i):
        with torch.no_grad(): return self.m(torch.full((50, 8, 32), float(i)))[0].sum()
if __name__ == "__main__":
    data = Data()
    loader = torch.utils.data.DataLoader(data, num_workers=2, multiprocessing_context=sys.argv[1])
    torch.testing.assert_close(torch.cat(list(loader)), torch.stack([data[i] for i in range(4)]))
    print("the same")
"""
    )
    result = subprocess.run(
        [sys.executable, str(script), start],
        env={**os.environ, "PYTHONPATH": str(Path(rnnfast.__file__).parent.parent)},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert result.stdout == "the same\n", result.stderr


def test_several_python_threads() -> None:
    """Forward and backward from 8 threads at once: the bits of the same calls one after another."""
    torch.manual_seed(0)
    module = rnnfast.LSTM(32, 64, bidirectional=True)
    parameters = list(module.parameters())

    def call(x: torch.Tensor) -> list[torch.Tensor]:
        y, (h, c) = module(x)
        return [y, h, c, *torch.autograd.grad(y.square().sum(), parameters)]

    inputs = [torch.randn(30, 5, 32) for _ in range(8)]
    want = [call(x) for x in inputs]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(10):
            for results, expected in zip(pool.map(call, inputs), want, strict=True):
                for a, b in zip(results, expected, strict=True):
                    assert_bitwise_equal("result", a, b)


@pytest.mark.parametrize("frozen", [False, True])
def test_gil_is_released(frozen: bool) -> None:
    """Another Python thread moves on during one call. No switch of threads is forced here: whoever holds the GIL keeps
    it until it lets go by itself."""
    module = rnnfast.LSTM(64, 64)
    forward = rnnfast.freeze(module) if frozen else module
    x = torch.randn(4000, 16, 64)
    ticks, started, stop = [0], threading.Event(), threading.Event()

    def count() -> None:
        started.set()
        while not stop.wait(1e-4):  # lets go of the GIL itself
            ticks[0] += 1

    before = sys.getswitchinterval()
    sys.setswitchinterval(1000)
    other = threading.Thread(target=count)
    try:
        other.start()
        started.wait()
        with torch.no_grad():
            first = ticks[0]
            forward(x)
            last = ticks[0]
    finally:
        sys.setswitchinterval(before)
        stop.set()
        other.join()
    # One tick may be a wake-up that was due as the call began or ended.
    assert last - first > 2


def test_set_num_threads_between_calls() -> None:
    """Every call follows torch.set_num_threads; the same count gives the same bits."""
    torch.manual_seed(0)
    module = rnnfast.GRU(48, 80, bidirectional=True)
    x = torch.randn(40, 6, 48)
    before = torch.get_num_threads()
    first: dict[int, torch.Tensor] = {}
    try:
        for count in (1, 3, 2, 5, 1, 2, 7, 3, 1, 5, 7):
            torch.set_num_threads(count)
            assert rnnfast.ops._C.threads() == count
            used = rnnfast.explain(module, x).threads
            assert used == count if count <= 5 else 5 <= used <= count  # by units, a step is worth six threads
            y = module(x)[0].detach()
            assert_bitwise_equal(f"{count} threads", y, first.setdefault(count, y))
            torch.testing.assert_close(y, first[1])
    finally:
        torch.set_num_threads(before)


def test_more_threads_than_units() -> None:
    torch.manual_seed(0)
    module = rnnfast.LSTM(300, 40)
    x = torch.randn(40, 9, 300)
    want = module(x)[0]
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(7)
        torch.testing.assert_close(module(x)[0], want)
        module(x)[0].sum().backward()
    finally:
        torch.set_num_threads(before)


def test_second_thread_really_runs() -> None:
    """An extension built without OpenMP would run serially and pass all else."""
    peak = rnnfast.ops._C.fma_peak
    assert peak(2) > 0
    assert rnnfast.ops._C.threads() == torch.get_num_threads()
    module = rnnfast.LSTM(64, 64)
    assert rnnfast.explain(module, torch.zeros(100, 8, 64)).threads >= min(2, torch.get_num_threads())
