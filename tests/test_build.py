# SPDX-License-Identifier: Apache-2.0
"""What the build must not do, and what the tree must have."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import rnnfast

ROOT = Path(__file__).resolve().parent.parent


def test_one_version() -> None:
    assert rnnfast.ops._C.version() == rnnfast.__version__
    assert f"## {rnnfast.__version__}" in (ROOT / "CHANGELOG.md").read_text()


def test_only_bindings_know_torch() -> None:
    for path in (ROOT / "csrc").rglob("*"):
        if path.is_file() and "bindings" not in path.parts:
            assert not re.search(r"#include *[<\"](torch|ATen|c10|pybind11)", path.read_text()), path


def test_cell_mathematics_is_plain() -> None:
    """No torch, no SIMD, no CUDA in a cell's header: only activations and the value type."""
    for path in (ROOT / "csrc/cells").glob("*.h"):
        if path.stem in ("all", "list"):  # what gathers the cells
            continue
        assert re.findall(r'#include *[<"](.+)[>"]', path.read_text()) == ["core/activations.h"], path
        name = path.stem
        assert (ROOT / f"tests/reference/{name}.py").exists(), f"cell {name} has no NumPy reference"


@pytest.mark.skipif(shutil.which("nm") is None, reason="needs nm (binutils)")
def test_no_target_leaks_code() -> None:
    """A target's functions live in its own namespace: one compiled for AVX-512 must not serve the others."""
    objects = sorted((ROOT / "build").glob("temp.*/**/targets/*.o"))
    if not objects:
        pytest.skip("no object files of an in-place build here")
    for path in objects:
        symbols = subprocess.run(["nm", "-C", str(path)], capture_output=True, text=True, check=True).stdout
        for line in symbols.splitlines():
            kind, _, name = line[17:].partition(" ")
            if kind in "TtWwVv" and "rnnfast" in name:
                # Methods of the plain-data structs are compiled before the target's instructions are allowed.
                own = f"rnnfast_{path.stem}::" in name
                assert (
                    own or path.stem == "generic" or re.match(r"rnnfast::(Sequence|LayerInputs|Range|Kernels)", name)
                ), line
            assert "_GLOBAL__sub_I" not in name, f"{path.name} runs code when it is loaded: {line}"


def test_cuda_is_built_or_refused_as_asked() -> None:
    """RNNFAST_CUDA: what cannot be built is named, nothing is guessed."""

    def setup(asked: str) -> subprocess.CompletedProcess:
        environment = {**os.environ, "RNNFAST_CUDA": asked, "PYTHONDONTWRITEBYTECODE": "1"}
        environment.pop("RNNFAST_PREBUILT", None)
        command = [sys.executable, "setup.py", "--name"]
        return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)

    assert "RNNFAST_CUDA: expected 0, 1 or nothing, got 'yes'" in setup("yes").stderr
    if torch.version.cuda is None:
        refused = setup("1")
        assert refused.returncode == 1
        assert "RNNFAST_CUDA=1 needs a torch with CUDA" in refused.stderr


def test_files_are_short() -> None:
    for pattern in (
        "csrc/**/*.h",
        "csrc/**/*.cpp",
        "csrc/**/*.cu",
        "rnnfast/**/*.py",
        "tests/**/*.py",
        "benchmarks/*.py",
        "examples/*.py",
    ):
        for path in ROOT.glob(pattern):
            assert len(path.read_text().splitlines()) <= 420, path
