# SPDX-License-Identifier: Apache-2.0
# Every target starts from a bare checkout; what is up to date is not done again.
#   make demo     trains a character language model on real text      (DEMO_ARGS="--text FILE" ...)
#   make test     builds and runs the tests                           (PYTEST_ARGS="-k gradcheck" ...)
#   make bench    against torch.nn, ONNX Runtime, OpenVINO, and limits (BENCH_ARGS="--quick" ...)
#   make cuda-check        compiles the CUDA kernels, without a GPU     (ARCHS="80 90" ...)
#   make cuda-build-check  builds against a CUDA torch, without a GPU  (CUDA_TORCH_VENV=path, or CUDA_ARGS=--download)
#   make lint | cpp-test | tsan | neon-test | wide-test | third-party | bench-rivals | setup | clean

PYTHON ?= python3
TORCH_SPEC ?= torch==2.13.0
CXX ?= g++
VENV := .venv
PY := $(VENV)/bin/python
CSRC := $(shell find csrc -name '*.cpp' -o -name '*.h' -o -name '*.cu')
ARCHS ?= 75 80 90 120
# What this machine could not run, the sanitizers need not see.
CMAKE_TARGETS := $(if $(shell grep -m1 -o avx512f /proc/cpuinfo 2>/dev/null),,-DRNNFAST_AVX512=OFF)
CLANG_FORMAT_FILES = $(CSRC) $(wildcard tests/cpp/*.cpp tests/cpp/*.h tests/cpp/*/*.cpp tests/cpp/*/*.h)

.PHONY: setup demo test bench bench-rivals third-party lint format cpp-test tsan neon-test wide-test cuda-check \
  cuda-build-check clean check-tools

setup: $(VENV)/built

check-tools:
	@command -v $(PYTHON) >/dev/null 2>&1 || { echo "rnnfast needs Python 3.10 or newer: install python3 (Debian: apt-get install python3 python3-venv python3-dev), or say make PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "rnnfast needs Python 3.10 or newer, and $(PYTHON) is older: install a newer one, or say make PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "rnnfast needs Python's venv module: install it (Debian: apt-get install python3-venv)" >&2; exit 1; }
	@$(PYTHON) -c 'import os, sysconfig, sys; sys.exit(not os.path.exists(os.path.join(sysconfig.get_paths()["include"], "Python.h")))' || { echo "rnnfast needs Python's C headers: install them (Debian: apt-get install python3-dev)" >&2; exit 1; }
	@command -v $(CXX) >/dev/null 2>&1 || { echo "rnnfast needs a C++ compiler with C++20 (GCC 11 or newer): install one (Debian: apt-get install g++), or say make CXX=/path/to/compiler" >&2; exit 1; }

# Dependencies, once, and again when what is pinned changes.
$(VENV)/installed: constraints.txt pyproject.toml | check-tools
	test -x $(PY) || $(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt "$(TORCH_SPEC)" numpy
	$(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt setuptools wheel pybind11 ninja \
	  pytest hypothesis expecttest tqdm matplotlib ruff mypy clang-format cmake build
	@touch $@

# The extension, in place; ninja compiles only what changed.
$(VENV)/built: $(VENV)/installed $(CSRC) setup.py rnnfast/version.py
	CXX=$(CXX) PATH="$(CURDIR)/$(VENV)/bin:$$PATH" $(PY) setup.py --quiet build_ext --inplace
	RNNFAST_PREBUILT=1 $(PY) -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e . \
	  --config-settings editable_mode=compat
	@touch $@

demo: setup
	$(VENV)/bin/rnnfast demo $(DEMO_ARGS)

test: setup
	$(PY) -m pytest $(PYTEST_ARGS)

# Packages whose models hold torch.nn's layers, for tests/test_third_party.py, which is skipped without them.
third-party: $(VENV)/third-party

$(VENV)/third-party: $(VENV)/installed
	$(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt pyro-ppl pytorch-nlp snntorch torch-geometric
	@touch $@

# The rivals of the benchmark besides torch.nn; it runs without them too, and says so.
bench: setup bench-rivals
	$(VENV)/bin/rnnfast bench $(BENCH_ARGS)

bench-rivals: $(VENV)/bench

$(VENV)/bench: $(VENV)/installed
	$(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt onnxruntime openvino onnx
	@touch $@

lint: $(VENV)/installed
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/clang-format --dry-run -Werror $(CLANG_FORMAT_FILES)
	@! grep -rnE '#include *[<"](torch|ATen|c10|pybind11)' csrc --include='*.h' --include='*.cpp' --include='*.cu' \
	  --exclude-dir=bindings \
	  || { echo "only csrc/bindings may include torch" >&2; exit 1; }

format: $(VENV)/installed
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .
	$(VENV)/bin/clang-format -i $(CLANG_FORMAT_FILES)

# The torch-free core under sanitizers.
cpp-test: $(VENV)/installed
	$(VENV)/bin/cmake -S . -B build/asan -DRNNFAST_SANITIZE=address,undefined $(CMAKE_TARGETS) -Wno-dev >/dev/null
	$(VENV)/bin/cmake --build build/asan -j 2
	$(VENV)/bin/ctest --test-dir build/asan --output-on-failure

tsan: $(VENV)/installed
	$(VENV)/bin/cmake -S . -B build/tsan -DRNNFAST_SANITIZE=thread $(CMAKE_TARGETS) -DRNNFAST_OPENMP=OFF -Wno-dev >/dev/null
	$(VENV)/bin/cmake --build build/tsan -j 2
	$(VENV)/bin/ctest --test-dir build/tsan --output-on-failure

# The same tests compiled for AArch64 (NEON) and run under an emulator; says so where that cannot be had.
neon-test: $(VENV)/installed
	CMAKE=$(VENV)/bin/cmake CTEST=$(VENV)/bin/ctest tests/cpp/neon.sh

# The AVX-512 shape lowered to AVX2. Compilers take minutes for it, so it is no part of the tests above.
wide-test: $(VENV)/installed
	$(VENV)/bin/cmake -S . -B build/wide -DRNNFAST_WIDE=ON -DRNNFAST_AVX512=OFF -Wno-dev >/dev/null
	$(VENV)/bin/cmake --build build/wide -j 2
	$(VENV)/bin/ctest --test-dir build/wide --output-on-failure

# The kernels as nvcc and ptxas see them: warnings, registers, spills; docs/cuda-kernels.md is written anew.
cuda-check:
	@$(PYTHON) .ci/cuda_check.py --archs "$(ARCHS)" --table docs/cuda-kernels.md

cuda-build-check:
	@PYTHON=$(PYTHON) .ci/cuda_build_check.sh $(CUDA_ARGS)

clean:
	rm -rf build dist $(VENV) rnnfast/_C*.so rnnfast.egg-info
