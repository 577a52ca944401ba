# SPDX-License-Identifier: Apache-2.0
"""Builds rnnfast._C and, for tests, rnnfast._emulator. Metadata: pyproject.toml. Instruction sets are chosen inside
csrc/cpu/targets, not by flags.

CUDA kernels are built where torch has CUDA and nvcc is found. RNNFAST_CUDA=0: never; RNNFAST_CUDA=1: or fail.
Their architectures: TORCH_CUDA_ARCH_LIST, as for any extension of torch ("9.0", "8.0;9.0+PTX", ...).
The emulator runs the same kernels on the host (docs/emulator.md). RNNFAST_EMULATOR=0: not built.
"""

import os
import re
import runpy
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import torch
from setuptools import Extension, setup


def cuda_home() -> str | None:
    """Where the CUDA toolkit stands: nvcc and the runtime's header. What is in PATH may be a script from elsewhere."""
    in_path = shutil.which("nvcc")
    beside = str(Path(in_path).resolve().parent.parent) if in_path else None
    for folder in (os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), beside, "/usr/local/cuda"):
        if folder and (Path(folder) / "bin/nvcc").exists() and (Path(folder) / "include/cuda_runtime_api.h").exists():
            return folder
    return None


CUDA_HOME = cuda_home()
if CUDA_HOME:
    os.environ["CUDA_HOME"] = CUDA_HOME  # torch would take the first nvcc in PATH
from torch.utils.cpp_extension import (  # noqa: E402
    BuildExtension,
    CppExtension,
    CUDAExtension,
    include_paths,
)

ROOT = Path(__file__).resolve().parent
VERSION = re.search(r'__version__ = "(.+)"', (ROOT / "rnnfast/version.py").read_text()).group(1)
# Which architectures: pure functions of the package, which cannot be imported before it is built.
ARCHITECTURES = runpy.run_path(str(ROOT / "rnnfast/architectures.py"))


def sources(*folders: str, suffix: str = ".cpp") -> list[str]:
    """Files of csrc, as setuptools wants them."""
    found = (p for folder in folders for p in (ROOT / "csrc" / folder).rglob(f"*{suffix}"))
    return sorted(str(path.relative_to(ROOT)) for path in found)


def builds_cuda() -> bool:
    """Whether the CUDA kernels are to be built; says what is missing where they were asked for."""
    asked = os.environ.get("RNNFAST_CUDA", "")
    if asked not in ("", "0", "1"):
        sys.exit(f"rnnfast: RNNFAST_CUDA: expected 0, 1 or nothing, got '{asked}'")
    missing = []
    if torch.version.cuda is None:
        missing.append(f"a torch with CUDA (this one, {torch.__version__}, has none)")
    if CUDA_HOME is None:
        missing.append("nvcc and the CUDA runtime's headers (set CUDA_HOME)")
    if asked == "1" and missing:
        sys.exit(f"rnnfast: RNNFAST_CUDA=1 needs {' and '.join(missing)}")
    return asked != "0" and not missing


def nvcc_release() -> tuple[int, int]:
    """(13, 0)"""
    said = subprocess.run([f"{CUDA_HOME}/bin/nvcc", "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"release (\d+)\.(\d+)", said)
    if found is None:
        sys.exit(f"rnnfast: {CUDA_HOME}/bin/nvcc --version: expected a release, got '{said.strip()}'")
    return int(found[1]), int(found[2])


def architectures() -> list[str]:
    """What the kernels are compiled for, in nvcc's names: as TORCH_CUDA_ARCH_LIST says, by default the devices here, or
    every major that nvcc knows."""
    try:
        if not os.environ.get("TORCH_CUDA_ARCH_LIST"):
            here = [torch.cuda.get_device_capability(i) for i in range(torch.cuda.device_count())]
            os.environ["TORCH_CUDA_ARCH_LIST"], left_out = ARCHITECTURES["default_list"](nvcc_release(), here)
            if left_out:
                print(f"rnnfast: CUDA kernels: {left_out}")
        # torch's own reading of the list ("Hopper", "native", ...), for which it has no public function.
        from torch.utils.cpp_extension import _get_cuda_arch_flags

        names = ARCHITECTURES["built_for"](_get_cuda_arch_flags())
    except ValueError as error:
        sys.exit(str(error))
    print(f"rnnfast: CUDA kernels for {', '.join(names)}")
    return names


# For tests: the AVX-512 shape on AVX2 as one more target, `RNNFAST_ISA=wide`.
WIDE = os.environ.get("RNNFAST_WIDE") == "1"
# torch's headers as system headers: our warnings are errors, theirs are not ours.
SYSTEM_INCLUDES = [flag for path in include_paths() for flag in ("-isystem", path)]
FLAGS = ["-O3", "-fopenmp", "-ffp-contract=fast", "-fvisibility=hidden", "-g0"]
WARNINGS = [
    "-Wall",
    "-Wextra",
    "-Werror",
    "-Wno-psabi",
    "-Wno-unknown-pragmas",
    "-Wno-missing-field-initializers",
]
CXX_FLAGS = ["-std=c++20", *FLAGS, *WARNINGS, *SYSTEM_INCLUDES]

os.environ.setdefault("MAX_JOBS", str(os.cpu_count() or 2))


def extension() -> CppExtension:
    """With or without CUDA. The folders that CMakeLists.txt globs too, and the bindings."""
    files = sources("core", "cells", "cpu", "cuda", "bindings")
    files = [name for name in files if not name.startswith("csrc/bindings/emulator/")]
    macros = [("RNNFAST_VERSION", f'"{VERSION}"'), *([("RNNFAST_WIDE", None)] if WIDE else [])]
    if WIDE:
        files.append("tests/cpp/targets/wide.cpp")
    cuda = builds_cuda()
    if cuda:
        files += sources("cuda", suffix=".cu")
        macros += [("RNNFAST_CUDA", None), ("RNNFAST_CUDA_ARCHITECTURES", f'"{" ".join(architectures())}"')]
        nvcc = ["-std=c++17", "-O3", "--expt-relaxed-constexpr", "-Werror", "all-warnings"]
        # torch's headers want those of cuBLAS and others, which its packages bring along and a bare toolkit lacks.
        nvidia = sorted(Path(sysconfig.get_paths()["purelib"]).glob("nvidia/cu*/include"))
        includes = [*include_paths("cuda"), *map(str, nvidia)]
        arguments = {"cxx": [*CXX_FLAGS, *(flag for path in includes for flag in ("-isystem", path))], "nvcc": nvcc}
    else:  # csrc/bindings/cuda: what needs torch's CUDA headers
        files = [name for name in files if not name.startswith("csrc/bindings/cuda/")]
        arguments = CXX_FLAGS
    return (CUDAExtension if cuda else CppExtension)(
        "rnnfast._C",
        files,
        include_dirs=[str(ROOT / "csrc")],
        define_macros=macros,
        extra_compile_args=arguments,
        extra_link_args=["-fopenmp"],
    )


def emulator() -> Extension:
    """The CUDA kernels for the host, without torch; of its headers only pybind11 is used. Compilers take .cu files for
    nvcc's, so each is included by a file of its own, which ninja compiles anew when what it includes has changed."""
    files = sources("cells", "cuda", "emulator", "bindings/emulator")
    folder = ROOT / "build/emulated"
    folder.mkdir(parents=True, exist_ok=True)
    for name in sources("cuda", suffix=".cu"):
        path = folder / (re.sub(r"\W", "_", name.removeprefix("csrc/").removesuffix(".cu")) + ".cpp")
        text = f'#include "{name.removeprefix("csrc/")}"\n'
        if not path.exists() or path.read_text() != text:
            path.write_text(text)
        files.append(str(path.relative_to(ROOT)))
    flags = ["-std=c++17", "-O1", "-fvisibility=hidden", "-g0", *WARNINGS, *SYSTEM_INCLUDES]
    return Extension(
        "rnnfast._emulator",
        files,
        include_dirs=[str(ROOT / "csrc")],
        define_macros=[("RNNFAST_EMULATE", None)],
        extra_compile_args=flags,
        language="c++",
    )


def extensions() -> list[Extension]:
    """What is to be built. The emulator is for tests: only where RNNFAST_EMULATOR=1 asks for it (`make test`)."""
    if os.environ.get("RNNFAST_PREBUILT"):
        return []
    return [extension(), emulator()] if os.environ.get("RNNFAST_EMULATOR") == "1" else [extension()]


# RNNFAST_PREBUILT: the extension stands in the tree already, and an editable install need not build it once more.
setup(
    ext_modules=extensions(),
    cmdclass={"build_ext": BuildExtension},
)
