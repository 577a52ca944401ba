# SPDX-License-Identifier: Apache-2.0
"""Which GPUs a build runs on: by tables, and with a build and a driver in their places, since there is no GPU here."""

import re
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

import rnnfast
from rnnfast import architectures, explain_cuda, fallback, functional, info
from rnnfast.ops import _C
from rnnfast.specs import CELLS

ROOT = Path(__file__).resolve().parent.parent


class Built:
    """The compiled core, as if built for other architectures."""

    def __init__(self, *names: str) -> None:
        self.names = list(names)

    def cuda_architectures(self) -> list[str]:
        return self.names

    def __getattr__(self, name: str) -> Any:
        return getattr(_C, name)


def pretend(monkeypatch: pytest.MonkeyPatch, built: tuple[str, ...], *devices: tuple[int, int]) -> list[int]:
    """A build and the devices of a machine; the indices that the driver is asked for."""
    asked: list[int] = []

    def capability(device: Any = None) -> tuple[int, int]:
        index = device if isinstance(device, int) else (device.index or 0)
        asked.append(index)
        return devices[index]

    for module in (fallback, explain_cuda, info):
        monkeypatch.setattr(module, "_C", Built(*built))
    monkeypatch.setattr(fallback, "_asked", {})
    monkeypatch.setattr(torch.cuda, "is_available", lambda: bool(devices))
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: bool(devices))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(devices))
    monkeypatch.setattr(torch.cuda, "get_device_capability", capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: f"Card {index}")
    return asked


RUNS = [
    # built, devices it runs on, devices it does not
    (["sm_80"], ["8.0", "8.6", "8.9"], ["7.5", "9.0", "12.0"]),
    (["sm_86"], ["8.6", "8.9"], ["8.0"]),
    (["sm_80", "compute_80"], ["8.0", "8.6", "8.7", "8.9", "9.0", "10.0", "12.1", "13.0"], ["7.5"]),
    (["sm_90a"], ["9.0"], ["9.1", "10.0"]),
    (["compute_90a"], ["9.0"], ["10.0"]),
    (["sm_100f"], ["10.0", "10.3"], ["11.0", "12.0"]),
    (["compute_100f"], ["10.0", "10.3"], ["9.0", "12.0"]),
    (["sm_120"], ["12.0", "12.1"], ["10.0"]),
    (["sm_75"], ["7.5"], ["8.0"]),
    (["sm_75", "compute_75"], ["7.5"], ["8.0", "9.0"]),  # its PTX traps in bfloat16's products
    (["sm_75", "sm_90", "compute_90"], ["7.5", "9.0", "12.0"], ["7.0", "8.0"]),
    (["sm_87"], ["8.7"], ["8.9"]),  # Tegra
    (["sm_80", "sm_100"], ["8.0", "10.3"], ["8.7", "11.0"]),
]


@pytest.mark.parametrize(("built", "yes", "no"), RUNS, ids=lambda value: " ".join(value))
def test_what_runs_where(built: list[str], yes: list[str], no: list[str]) -> None:
    for device in yes:
        major, minor = map(int, device.split("."))
        assert architectures.why_no_code(built, (major, minor)) is None, device
    for device in no:
        major, minor = map(int, device.split("."))
        reason = architectures.why_no_code(built, (major, minor))
        assert reason is not None, device
        assert reason.startswith(f"no rnnfast kernels for compute capability {device}")
        if (major, minor) >= architectures.OLDEST:
            assert f"this installation has {', '.join(built)}; TORCH_CUDA_ARCH_LIST={device} builds them" in reason
        else:
            assert reason.endswith("older than 7.5")


def test_not_built_and_no_name() -> None:
    assert architectures.why_no_code([], (9, 0)) == architectures.NOT_BUILT
    assert architectures.capability_of("sm_120a") == (12, 0)
    for name in ("sm_9", "90", "sm_90b", "lto_90", ""):
        with pytest.raises(ValueError, match=f"expected a name as sm_90 or compute_90, got '{name}'"):
            architectures.capability_of(name)


DEFAULTS = [
    # nvcc, devices here, TORCH_CUDA_ARCH_LIST, left out
    ((13, 0), [], "7.5;8.0;9.0;10.0;12.0+PTX", ""),
    ((12, 8), [], "7.5;8.0;9.0;10.0;12.0+PTX", ""),
    ((12, 7), [], "7.5;8.0;9.0+PTX", "10.0, 12.0"),
    ((11, 7), [], "7.5;8.0+PTX", "9.0, 10.0, 12.0"),
    ((13, 0), [(8, 9), (8, 0), (8, 9)], "8.0;8.9", ""),
    ((12, 4), [(8, 6), (10, 0)], "8.6;9.0+PTX", "10.0"),
    ((12, 8), [(12, 1)], "12.0+PTX", "12.1"),
    ((12, 8), [(10, 3)], "10.0+PTX", "10.3"),  # 12.0 is known, and no help
    ((13, 0), [(14, 2)], "12.0+PTX", "14.2"),
    ((13, 0), [(7, 0)], "7.5;8.0;9.0;10.0;12.0+PTX", ""),  # not one that the kernels run on
]


@pytest.mark.parametrize(("nvcc", "here", "listed", "left_out"), DEFAULTS)
def test_the_default_list(nvcc: tuple[int, int], here: list[tuple[int, int]], listed: str, left_out: str) -> None:
    found, said = architectures.default_list(nvcc, here)
    assert found == listed
    release = f"nvcc {nvcc[0]}.{nvcc[1]}"
    newest = listed.rpartition(";")[2]
    assert said == (f"{left_out} left out, which {release} does not know; {newest} runs there" if left_out else "")
    names = [f"sm_{name.removesuffix('+PTX').replace('.', '')}" for name in listed.split(";")]
    if listed.endswith("+PTX"):
        names.append(names[-1].replace("sm", "compute"))
    for device in [device for device in here if device >= architectures.OLDEST]:
        assert architectures.why_no_code(names, device) is None, f"{device}: what is here must run"


def test_an_nvcc_that_is_too_old() -> None:
    with pytest.raises(ValueError, match=r"nvcc 9\.2 knows no architecture from 7\.5 on"):
        architectures.default_list((9, 2))


def test_what_flags_compile_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch's own flags, as setup.py has them."""
    from torch.utils.cpp_extension import _get_cuda_arch_flags

    def built(listed: str) -> list[str]:
        monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", listed)
        return architectures.built_for(_get_cuda_arch_flags())

    assert built("8.0") == ["sm_80"]
    assert built("7.5;12.0+PTX 9.0a") == ["sm_75", "sm_90a", "sm_120", "compute_120"]
    assert built("Hopper") == ["sm_90", "compute_90"]
    with pytest.raises(ValueError, match=r"TORCH_CUDA_ARCH_LIST: expected 7\.5 or newer, got 7\.0"):
        built("7.0;8.0")


def test_setup_loads_the_file_alone() -> None:
    """It runs before the package is built."""
    text = (ROOT / "rnnfast/architectures.py").read_text()
    assert not re.search(r"^(from|import) (?!re\b|collections\b)", text, re.MULTILINE)
    assert "rnnfast/architectures.py" in (ROOT / "setup.py").read_text()


def test_a_device_is_asked_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = pretend(monkeypatch, ("sm_80",), (8, 6), (9, 0))
    for _ in range(3):
        assert fallback.why_not_on(0) is None
        assert "compute capability 9.0: this installation has sm_80" in str(fallback.why_not_on(1))
    assert asked == [0, 1]


@pytest.mark.skipif(torch.cuda.is_available(), reason="fake tensors of a machine without a CUDA device")
def test_fake_tensors_ask_no_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a device that is not here: with kernels in the build they are taken, without torch's own layer runs."""
    taken: list[str | None] = []
    right = fallback.why_no_kernel

    def why_no_kernel(x: torch.Tensor) -> str | None:
        taken.append(right(x))
        return taken[-1]

    asked = pretend(monkeypatch, ("sm_80",))
    with FakeTensorMode():
        x = torch.empty(3, 2, 5, device="cuda")
        assert fallback.why_no_kernel(x) is None
        compiled = torch.compile(lambda t: fallback.why_no_kernel(t), backend="eager", fullgraph=True)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert compiled(x) is None
        monkeypatch.setattr(fallback, "why_no_kernel", why_no_kernel)
        weights = [torch.empty(32, 5, device="cuda"), torch.empty(32, 8, device="cuda")]
        options = {"has_biases": False, "num_layers": 1, "dropout": 0.0, "training": False, "bidirectional": False}
        y, h_n, _ = functional.run_layers(CELLS["lstm"], x, None, None, None, weights, **options)
        assert (y.shape, h_n.shape, y.device.type) == ((3, 2, 8), (1, 2, 8), "cuda")
    assert taken == [None]
    assert asked == []
    assert fallback._asked == {}, "a real tensor comes later"
    pretend(monkeypatch, ())
    with FakeTensorMode():
        assert right(torch.empty(3, 2, 5, device="cuda")) == architectures.NOT_BUILT


def test_explain_names_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    def note(device: str) -> str:
        found = rnnfast.explain(rnnfast.LSTM(5, 8), torch.zeros(3, 2, 5), device=device)
        assert found.path == "rnnfast"
        return "; ".join(reason for reason in found.reasons if "no rnnfast kernels" in reason)

    asked = pretend(monkeypatch, ("sm_80", "sm_120"))
    assert note("sm_86") == note("sm_120") == ""
    assert note("sm_90a") == (
        "no rnnfast kernels for compute capability 9.0: this installation has sm_80, sm_120; "
        "TORCH_CUDA_ARCH_LIST=9.0 builds them; on such a GPU torch's own runs"
    )
    assert asked == []


def test_explain_of_a_device_that_is_here(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, ("sm_80",), (8, 6), (9, 0))
    assert explain_cuda.why_no_cuda(torch.device("cuda:0")) == []
    found = rnnfast.explain(rnnfast.LSTM(5, 8), torch.zeros(3, 2, 5), device="cuda:1")
    assert found.path == "torch"
    assert "compute capability 9.0: this installation has sm_80" in found.reasons[0]
    assert explain_cuda.why_no_cuda(torch.device("cuda:2")) == ["no CUDA device 2 on this machine, which has 2"]


def test_info_says_where_they_do_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, ("sm_80", "compute_80"), (8, 6), (7, 5))
    text = info.info_text()
    assert "kernels built for sm_80, compute_80; torch sees Card 0 (8.6), Card 1 (7.5)" in text
    assert "for more:     no rnnfast kernels for compute capability 7.5" in text
    assert text.count("no rnnfast kernels") == 1
