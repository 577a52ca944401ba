#!/usr/bin/env bash
# Builds the complete extension, CUDA kernels included, against a CUDA build of torch, imports it, and checks that
# the CUDA implementations of the ops are registered. No GPU needed; nothing of the tree's own build is touched.
#
#   CUDA_TORCH_VENV=/path/to/venv .ci/cuda_build_check.sh    a virtual environment with such a torch, setuptools,
#                                                            wheel, pybind11, ninja, numpy
#   .ci/cuda_build_check.sh --download                       makes one in build/cuda-venv (about 6 GB, some minutes)
#   .ci/cuda_build_check.sh --ci                             what is missing is said, but is no failure
#
# TORCH_CUDA_ARCH_LIST (default 8.0;9.0), MAX_JOBS (default 2), CUDA_TORCH_SPEC (what --download installs).
set -euo pipefail
cd "$(dirname "$0")/.."
ci= download=
for argument in "$@"; do
  case $argument in
    --ci) ci=1 ;;
    --download) download=1 ;;
    *) echo "cuda-build-check: expected --ci or --download, got '$argument'" >&2; exit 2 ;;
  esac
done

not_checked() {
  echo "CUDA BUILD NOT CHECKED: $1"
  [ -n "$ci" ] && exit 0
  exit 2
}

command -v nvcc >/dev/null || [ -x "${CUDA_HOME:-/usr/local/cuda}/bin/nvcc" ] || not_checked "no nvcc"

venv=${CUDA_TORCH_VENV:-build/cuda-venv}
if [ -n "$download" ] && [ ! -e "$venv/installed" ]; then
  ${PYTHON:-python3} -m venv "$venv"
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check "${CUDA_TORCH_SPEC:-torch==2.14.1}" numpy \
    setuptools wheel pybind11 ninja || not_checked "a CUDA build of torch could not be installed"
  touch "$venv/installed"
fi
[ -x "$venv/bin/python" ] ||
  not_checked "no CUDA build of torch at hand: CUDA_TORCH_VENV=/path/to/venv, or --download (about 6 GB)"
python=$(cd "$venv/bin" && pwd)/python
"$python" -c 'import sys, torch; sys.exit(torch.version.cuda is None)' ||
  not_checked "the torch of $venv has no CUDA"

export RNNFAST_CUDA=1 RNNFAST_EMULATOR=0 MAX_JOBS=${MAX_JOBS:-2} TORCH_CUDA_ARCH_LIST=${TORCH_CUDA_ARCH_LIST:-8.0;9.0}
unset RNNFAST_PREBUILT
base=build/cuda
mkdir -p $base
begin=$SECONDS
echo "building against torch $("$python" -c 'import torch; print(torch.__version__)') for $TORCH_CUDA_ARCH_LIST"
if ! PATH=$(dirname "$python"):$PATH "$python" setup.py --quiet build --build-base $base --build-lib $base/lib \
  >$base/build.log 2>&1; then
  grep -nE 'error|Error' $base/build.log | head -n 20 || true
  echo "CUDA BUILD FAILED: see $base/build.log" >&2
  exit 1
fi
cd $base/lib
PYTHONPATH=$PWD "$python" - <<'PYTHON'
import sys

import torch

import rnnfast
from rnnfast.ops import _C

assert rnnfast.__file__.startswith(sys.path[1]), rnnfast.__file__
architectures = _C.cuda_architectures()
assert architectures, "the extension says that it was built without CUDA"
ops = [f"rnnfast::{cell}_layer{suffix}" for cell in _C.cells() for suffix in ("", "_backward")]
missing = [op for op in ops if not torch._C._dispatch_has_kernel_for_dispatch_key(op, "CUDA")]
if missing:
    sys.exit(f"CUDA BUILD FAILED: built and imported, but without a CUDA implementation: {', '.join(missing)}")
print(f"{len(ops)} ops have CUDA implementations, for {', '.join(architectures)}")
PYTHON
echo "CUDA build: no complaint, $((SECONDS - begin)) s"
