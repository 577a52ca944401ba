# SPDX-License-Identifier: Apache-2.0
"""Builds rnnfast._C. Metadata: pyproject.toml. Instruction sets are chosen inside csrc/cpu/targets, not by flags."""

import os
import re
from pathlib import Path

from setuptools import setup
from torch.utils.cpp_extension import BuildExtension, CppExtension, include_paths

ROOT = Path(__file__).resolve().parent
VERSION = re.search(r'__version__ = "(.+)"', (ROOT / "rnnfast/version.py").read_text()).group(1)
# The folders that CMakeLists.txt globs too, and the bindings.
SOURCES = sorted(
    str(path.relative_to(ROOT))
    for folder in ("core", "cells", "cpu", "bindings")
    for path in (ROOT / "csrc" / folder).rglob("*.cpp")
)
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

os.environ.setdefault("MAX_JOBS", str(os.cpu_count() or 2))

# RNNFAST_PREBUILT: the extension stands in the tree already, and an editable install need not build it once more.
setup(
    ext_modules=[]
    if os.environ.get("RNNFAST_PREBUILT")
    else [
        CppExtension(
            "rnnfast._C",
            [*SOURCES, "tests/cpp/targets/wide.cpp"] if WIDE else SOURCES,
            include_dirs=[str(ROOT / "csrc")],
            define_macros=[("RNNFAST_VERSION", f'"{VERSION}"'), *([("RNNFAST_WIDE", None)] if WIDE else [])],
            extra_compile_args=["-std=c++20", *FLAGS, *WARNINGS, *SYSTEM_INCLUDES],
            extra_link_args=["-fopenmp"],
        )
    ],
    cmdclass={"build_ext": BuildExtension},
)
