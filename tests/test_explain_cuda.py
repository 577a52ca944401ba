# SPDX-License-Identifier: Apache-2.0
"""rnnfast.explain on GPUs, without one: the plan by an architecture's name. The plan itself: tests/cpp."""

import re
from typing import Any

import pytest
import torch
from torch import nn

import rnnfast
from rnnfast import explain_cuda
from rnnfast.architectures import capability_of
from rnnfast.info import info_text
from rnnfast.ops import _C
from tests.torchs import CELLS, LAYERS, packed

KNOWN = ["sm_75", "sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120"]
NO_DEVICE = not torch.cuda.is_available()


def explain(module: Any, *sizes: int, device: str = "sm_90", **kwargs: Any) -> rnnfast.Explanation:
    return rnnfast.explain(module, torch.zeros(*sizes, **kwargs), device=device)


@pytest.fixture(autouse=True)
def no_path_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RNNFAST_CUDA_PATH", raising=False)


@pytest.mark.parametrize("device", [*KNOWN, "sm_90a"])
@pytest.mark.parametrize("name", [*LAYERS, *CELLS])
def test_every_module_on_every_device(name: str, device: str) -> None:
    module = getattr(rnnfast, name)(16, 64)
    found = explain(module, *((100, 4, 16) if name in LAYERS else (4, 16)), device=device)
    assert found.path == "rnnfast"
    assert found.isa.startswith(f"{device} (")
    assert found.threads == (256 if "forward persistent" in found.kernel or ": persistent" in found.kernel else 128)
    assert re.search(r"a prediction, not a measurement, .* us a step of a layer", found.predicted_cost)
    assert found.kernel.split()[0] == explain_cuda_name(name)
    assert "forward and BPTT" in found.kernel
    text = str(found)
    assert all(word in text for word in ("path:", "decomposition:", "predicted cost:"))
    assert max(map(len, text.splitlines())) < 400
    with torch.no_grad():
        assert "BPTT" not in str(explain(module, *((100, 4, 16) if name in LAYERS else (4, 16)), device=device))


def explain_cuda_name(name: str) -> str:
    return {"RNN": "rnn_tanh"}.get(name.removesuffix("Cell"), name.removesuffix("Cell").lower())


def test_control_over_bptt_is_told() -> None:
    module = rnnfast.LSTM(16, 64, bptt_clip=("value", 0.5), checkpoint_every=10, nan_policy="raise")
    told = explain(module, 100, 4, 16).reasons
    plain = explain(rnnfast.LSTM(16, 64), 100, 4, 16).reasons
    assert told[: len(plain)] == plain
    assert [reason.split(":")[0] for reason in told[len(plain) :]] == ["bptt_clip", "checkpoint_every", "nan_policy"]


def test_persistent_where_it_fits() -> None:
    with torch.no_grad():
        found = explain(rnnfast.LSTM(256, 256), 100, 1, 256)
        assert "persistent path, multiply-adds" in found.kernel
        blocks, units = map(
            int, re.findall(r"(\d+) blocks of (\d+) hidden units?, 1 sample a pass", found.decomposition)[0]
        )
        assert blocks * units >= 256 > (blocks - 1) * units
        assert "step path" in found.predicted_cost
        both = explain(rnnfast.LSTM(256, 256, bidirectional=True), 100, 1, 256)
        assert "both directions in one launch" in both.decomposition
        large = explain(rnnfast.LSTM(8, 1104, bidirectional=True), 100, 1, 8)
        assert "one direction after the other" in large.decomposition
        assert "for both at once, on 132 multiprocessors" in str(large)


def test_refusals_are_told() -> None:
    projected = explain(rnnfast.LSTM(64, 256, proj_size=32), 100, 4, 64)
    assert "step path" in projected.kernel
    assert "a projection changes h" in str(projected)
    large = explain(rnnfast.LSTM(8, 2048), 10, 1, 8, device="sm_75")
    assert "a GEMM and a pointwise kernel a step" in large.decomposition
    assert "the kernels have code for 32" in str(large)
    assert "BPTT: no persistent path" in str(large)


def test_dtypes_and_tensor_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    def product(dtype: torch.dtype, batch: int = 16, device: str = "sm_90") -> str:
        with torch.no_grad():
            found = explain(rnnfast.GRU(64, 256, dtype=dtype), 100, batch, 64, device=device, dtype=dtype)
        return found.kernel.rpartition(", ")[2]

    assert product(torch.float16) == product(torch.bfloat16) == "tensor cores"
    assert product(torch.float64) == product(torch.float16, batch=4) == "multiply-adds"
    assert product(torch.bfloat16, device="sm_75") == "multiply-adds"
    with pytest.raises(ValueError, match="does not match weight dtype"):
        explain(rnnfast.GRU(64, 256), 100, 16, 64, dtype=torch.float16)
    rnn: Any = torch.backends.cudnn.rnn
    before = rnn.fp32_precision
    try:
        rnn.fp32_precision = "tf32"
        assert product(torch.float32) == "tensor cores"
        rnn.fp32_precision = "ieee"
        assert product(torch.float32) == "multiply-adds"
        # Autocast for CUDA cannot be switched on without a device.
        monkeypatch.setattr(torch, "is_autocast_enabled", lambda kind: kind == "cuda")
        assert product(torch.float32) == "tensor cores"
        assert product(torch.float64) == "multiply-adds"
    finally:
        rnn.fp32_precision = before


def test_more_work_costs_more() -> None:
    def total(*sizes: int, **options: Any) -> float:
        found = explain(rnnfast.LSTM(64, 256, **options), *sizes, 64)
        return float(re.findall(r"([\d.e+]+) us a call$", found.predicted_cost)[0])

    assert total(10, 1) < total(100, 1) < total(100, 64)
    assert total(100, 1) < total(100, 1, num_layers=2)
    assert total(100, 64) < total(100, 64, bidirectional=True)
    lstm = rnnfast.LSTM(64, 256)
    dense, ragged = (rnnfast.explain(lstm, packed(rows, 64), device="sm_80") for rows in ([9, 9], [9, 4]))
    assert dense.predicted_cost == ragged.predicted_cost


def test_what_is_not_ours_on_a_gpu() -> None:
    assert explain(nn.LSTM(5, 8), 3, 2, 5).path == "torch"
    accelerated = nn.LSTM(5, 8)
    rnnfast.accelerate(accelerated)
    assert explain(accelerated, 3, 2, 5).path == "rnnfast"
    found = rnnfast.explain(rnnfast.freeze(rnnfast.LSTM(5, 8)), torch.zeros(3, 2, 5), device="sm_90")
    assert (found.path, found.reasons) == ("torch", ["a frozen snapshot is the CPU's"])
    with pytest.raises(RuntimeError):
        explain(rnnfast.LSTM(5, 8), 3, 2, 4)


@pytest.mark.parametrize("name", ["sm_x", "sm_13", "sm_90b", "sm_"])
def test_unknown_architectures(name: str) -> None:
    with pytest.raises(ValueError, match=f"expected one of {', '.join(KNOWN)}, got '{name}'"):
        explain(rnnfast.LSTM(5, 8), 3, 2, 5, device=name)
    assert _C.cuda_devices() == KNOWN


@pytest.mark.skipif(not NO_DEVICE, reason="this machine has a CUDA device")
@pytest.mark.parametrize("device", ["cuda", "cuda:1", torch.device("cuda")])
def test_a_device_that_is_not_here(device: Any) -> None:
    found = rnnfast.explain(rnnfast.LSTM(5, 8), torch.zeros(3, 2, 5), device=device)
    assert found.path == "torch"
    assert found.reasons[-1] == f"no CUDA device on this machine; to ask about one, name it: {', '.join(KNOWN)}"
    if not _C.cuda_architectures():
        assert "built without them" in found.reasons[0]
        assert "built without them; on such a GPU torch's own runs" in str(explain(rnnfast.LSTM(5, 8), 3, 2, 5))


def test_the_environment_asks_for_a_path(monkeypatch: pytest.MonkeyPatch) -> None:
    lstm = rnnfast.LSTM(64, 256)
    with torch.no_grad():
        monkeypatch.setenv("RNNFAST_CUDA_PATH", "step")
        found = explain(lstm, 100, 1, 64)
        assert "step path" in found.kernel
        assert "the step path was asked for" in found.reasons
        monkeypatch.setenv("RNNFAST_CUDA_PATH", "persistent")
        assert "persistent path" in explain(rnnfast.LSTM(64, 64), 100, 4096, 64, device="sm_80").kernel
        monkeypatch.setenv("RNNFAST_CUDA_PATH", "fast")
        with pytest.raises(ValueError, match="RNNFAST_CUDA_PATH: expected step, persistent or nothing, got 'fast'"):
            explain(lstm, 100, 1, 64)


def test_the_environment_counts_multiprocessors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a device that is here: a small layer laid out as a large one. What is named is as it is."""
    device = {
        "architecture": 80, "processors": 108, "shared_block": 163 << 10,
        "shared_processor": 164 << 10, "registers": 65536, "threads": 2048, "l2_bytes": 40 << 20,
    }  # fmt: skip

    def plan(on: Any) -> Any:
        return _C.explain_cuda(on, "lstm", 6, 300, 5, 70, 70, 1, "float32", False, True, False, False)

    monkeypatch.setenv("RNNFAST_CUDA_PATH", "persistent")
    assert plan(device)["blocks"] > 4
    monkeypatch.setenv("RNNFAST_CUDA_PROCESSORS", "4")
    assert plan(device)["processors"] == 4
    assert plan(device)["blocks"] <= 4
    assert plan("sm_80")["processors"] == 108
    monkeypatch.setenv("RNNFAST_CUDA_PROCESSORS", "1000")
    assert plan(device)["processors"] == 108
    for wrong in ("0", "-3", "four", "4x"):
        monkeypatch.setenv("RNNFAST_CUDA_PROCESSORS", wrong)
        with pytest.raises(ValueError, match=f"RNNFAST_CUDA_PROCESSORS: expected a positive number, got '{wrong}'"):
            plan(device)


def test_a_device_as_the_driver_describes_it() -> None:
    """The properties of a card that no row of the table has: fewer multiprocessors, larger slices."""
    half = {
        "architecture": 87, "processors": 16, "shared_block": 99 << 10, "shared_processor": 100 << 10,
        "registers": 65536, "threads": 1536, "l2_bytes": 4 << 20,
    }  # fmt: skip
    plan = _C.explain_cuda(half, "lstm", 100, 1, 64, 256, 256, 1, "float32", False, False, False, False)
    assert plan["processors"] == 16
    assert plan["path"] == "persistent"
    assert plan["blocks"] <= 16
    whole = _C.explain_cuda("sm_86", "lstm", 100, 1, 64, 256, 256, 1, "float32", False, False, False, False)
    assert plan["units"] > whole["units"]
    assert plan["microseconds"] > whole["microseconds"]
    assert set(plan["cost"]) == {"barrier", "exchange", "product", "pointwise", "launch"}
    with pytest.raises(ValueError, match="there is no 'peephole'"):
        _C.explain_cuda("sm_86", "peephole", 1, 1, 1, 1, 1, 1, "float32", False, False, False, False)
    with pytest.raises(ValueError, match=r"dtype: expected .* got 'int8'"):
        _C.explain_cuda("sm_86", "lstm", 1, 1, 1, 1, 1, 1, "int8", False, False, False, False)


def test_why_no_cuda_names_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert "no CUDA device 3 on this machine, which has 1" in explain_cuda.why_no_cuda(torch.device("cuda:3"))
    built = _C.cuda_architectures()
    capability = capability_of(built[0]) if built else (8, 0)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    reasons = explain_cuda.why_no_cuda(torch.device("cuda"))
    assert reasons == [] if built else "built without them" in reasons[0]


def test_info_says_whether_kernels_are_built() -> None:
    line = next(line for line in info_text().splitlines() if line.startswith("CUDA:"))
    built = _C.cuda_architectures()
    assert (f"kernels built for {', '.join(built)}" if built else "kernels not built") in line
    assert ("CUDA kernels: build from source" in info_text()) == (not built)
