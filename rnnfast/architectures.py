# SPDX-License-Identifier: Apache-2.0
"""Which GPUs a build of the CUDA kernels runs on. Pure functions of names and versions; setup.py loads this file too.

A build is a list of nvcc's names: "sm_80" is machine code, "compute_80" is PTX, which the driver compiles for the
device it meets. Machine code runs on devices of its major and the same or a later minor; PTX on any device that is not
older (Blackwell Compatibility Guide, 1.2). A suffix narrows both: "a" to one architecture, "f" to one major.
"""

import re
from collections.abc import Iterable, Sequence

__all__ = ["NOT_BUILT", "OLDEST", "built_for", "capability_of", "default_list", "why_no_code"]

Capability = tuple[int, int]

NOT_BUILT = "no rnnfast kernels for device cuda: this installation was built without them"
OLDEST: Capability = (7, 5)  # tensor cores by mma.sync.m16n8k8
# Kernels compiled for less have traps in the place of bfloat16's and tf32's products, which the plan asks for from
# this device on: their PTX must not run there.
_TENSOR_CORES: Capability = (8, 0)
_TEGRA: tuple[Capability, ...] = ((8, 7), (11, 0))
# The release of nvcc that is the first to know an architecture (CUDA Toolkit release notes).
_FIRST_NVCC: dict[Capability, tuple[int, int]] = {
    (7, 5): (10, 0),
    (8, 0): (11, 0),
    (8, 6): (11, 1),
    (8, 7): (11, 4),
    (8, 9): (11, 8),
    (9, 0): (11, 8),
    (10, 0): (12, 8),
    (12, 0): (12, 8),
    (10, 3): (12, 9),
    (12, 1): (12, 9),
    (11, 0): (13, 0),
}
# Machine code for each of these serves the later minors of its major (8.0: 8.6, 8.9).
_EVERYWHERE: tuple[Capability, ...] = ((7, 5), (8, 0), (9, 0), (10, 0), (12, 0))
_NAME = re.compile(r"(sm|compute)_(\d+)(\d)([af]?)")


def _dotted(number: tuple[int, int]) -> str:
    return f"{number[0]}.{number[1]}"


def capability_of(name: str) -> Capability:
    """The compute capability in an architecture's name: "sm_90a" -> (9, 0).

    Raises:
        ValueError: it is none.
    """
    found = _NAME.fullmatch(name)
    if found is None:
        raise ValueError(f"rnnfast: architecture: expected a name as sm_90 or compute_90, got '{name}'")
    return int(found[2]), int(found[3])


def _runs(name: str, device: Capability) -> bool:
    """Whether what was compiled for `name` runs on a device of this compute capability."""
    code = capability_of(name)
    if name.endswith("a"):
        return device == code
    if name.startswith("sm_") and (code in _TEGRA or device in _TEGRA):
        return device == code
    if name.startswith("sm_") or name.endswith("f"):
        return device[0] == code[0] and device >= code
    return device >= code and not code < _TENSOR_CORES <= device


def why_no_code(built: Sequence[str], device: Capability) -> str | None:
    """Why a build for these architectures runs nothing on a device of this compute capability; None: it runs.

    built: as ``_C.cuda_architectures()`` has it. The reason says what was built and how to build for the device.
    """
    if not built:
        return NOT_BUILT
    what = f"no rnnfast kernels for compute capability {_dotted(device)}"
    if device < OLDEST:
        return f"{what}, older than {_dotted(OLDEST)}"
    if any(_runs(name, device) for name in built):
        return None
    return f"{what}: this installation has {', '.join(built)}; TORCH_CUDA_ARCH_LIST={_dotted(device)} builds them"


def built_for(flags: Iterable[str]) -> list[str]:
    """The architectures that nvcc's flags (-gencode=arch=compute_80,code=sm_80) compile for: machine code, then PTX.

    Raises:
        ValueError: one is older than the kernels need.
    """
    found = {name for flag in flags for name in re.findall(r"(?<=code=)(?:sm|compute)_\d+[af]?", flag)}
    names = sorted(found, key=lambda name: (not name.startswith("sm_"), capability_of(name), name))
    for name in names:
        code = capability_of(name)
        if code < OLDEST:
            raise ValueError(f"rnnfast: TORCH_CUDA_ARCH_LIST: expected {_dotted(OLDEST)} or newer, got {_dotted(code)}")
    return names


def default_list(nvcc: tuple[int, int], here: Iterable[Capability] = ()) -> tuple[str, str]:
    """What to compile for where nobody says: the devices that are here, else every major that nvcc knows.

    nvcc: its release, (12, 4). Returns a TORCH_CUDA_ARCH_LIST and what to say of what was left out, or nothing.
    The newest of a list for everywhere brings its PTX along, for the devices that nvcc does not know yet.
    """
    devices = sorted({device for device in here if device >= OLDEST})
    wanted = devices or list(_EVERYWHERE)
    unknown = [device for device in wanted if _FIRST_NVCC.get(device, (99, 0)) > nvcc]
    chosen = [device for device in wanted if device not in unknown]
    if unknown and devices:  # the newest before it that nvcc knows: machine code for what is here cannot be had
        older = [known for known in _EVERYWHERE if _FIRST_NVCC[known] <= nvcc and known < unknown[0]]
        chosen = sorted({*chosen, *older[-1:]})
    if not chosen:
        raise ValueError(f"rnnfast: nvcc {_dotted(nvcc)} knows no architecture from {_dotted(OLDEST)} on")
    names = [_dotted(device) for device in chosen]
    if unknown or not devices:
        names[-1] += "+PTX"
    said = ""
    if unknown:
        said = f"{', '.join(map(_dotted, unknown))} left out, which nvcc {_dotted(nvcc)} does not know"
        said += f"; {names[-1]} runs there"
    return ";".join(names), said
