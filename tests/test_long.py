# SPDX-License-Identifier: Apache-2.0
"""Inference on long sequences: beyond input and output, memory does not grow with their length."""

import json
import subprocess
import sys

import pytest

from benchmarks.memory import ALLOCATOR, ROOT, unavailable

CHILD = """
import json, sys
import torch
import rnnfast
from pathlib import Path

def peak():
    text = Path("/proc/self/status").read_text()
    return int(text.partition("VmHWM:")[2].split()[0]) * 1024

def resident():
    text = Path("/proc/self/status").read_text()
    return int(text.partition("VmRSS:")[2].split()[0]) * 1024

kind, way, half, threads = sys.argv[1], sys.argv[2], sys.argv[3] == "half", int(sys.argv[4])
torch.set_num_threads(threads)
torch.manual_seed(0)
module = getattr(rnnfast, kind)(3, 24, 3).eval()
if half:
    module = module.bfloat16()
call = {"module": lambda x: module(x)[0], "frozen": lambda x: rnnfast.freeze(module)(x)[0],
        "stream": lambda x: rnnfast.Stream(module)(x)}[way]
grown = []
with torch.no_grad():
    call(torch.randn(20000, 1, 3).to(module.weight_ih_l0.dtype))
    for T in (20000, 100000):
        x = torch.randn(T, 1, 3).to(module.weight_ih_l0.dtype)
        Path("/proc/self/clear_refs").write_text("5")
        before = resident()
        y = call(x)
        grown.append(peak() - before - y.nbytes)
        del y
print(json.dumps(grown))
"""


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(
    ("kind", "way", "dtype"),
    [
        ("LSTM", "module", "single"),
        ("GRU", "module", "single"),
        ("LSTM", "frozen", "single"),
        ("LSTM", "stream", "single"),
        ("GRU", "frozen", "half"),
        ("RNN", "stream", "half"),
    ],
)
def test_memory_does_not_grow_with_the_sequence(kind: str, way: str, dtype: str, threads: int) -> None:
    reason = unavailable()
    if reason:
        pytest.skip(reason)
    command = [sys.executable, "-c", CHILD, kind, way, dtype, str(threads)]
    environment = {"PATH": "/usr/bin:/bin", **ALLOCATOR}
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    short, long = json.loads(result.stdout.splitlines()[-1])
    # One value a row between two layers would be 80,000 x 24 x 4 bytes = 7.7 MB more.
    assert long - short < 2 << 20, f"peak beyond input and output: {short} bytes at T = 20000, {long} at T = 100000"
