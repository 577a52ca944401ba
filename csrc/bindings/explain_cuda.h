// SPDX-License-Identifier: Apache-2.0
// What the plan for GPUs says, for Python; and the path that the environment asks for.
#pragma once

#include <pybind11/pybind11.h>

#include "cuda/plan.h"

namespace rnnfast {

// RNNFAST_CUDA_PATH, for tests and measurements: step, persistent, or nothing (the plan's choice). Throws
// std::invalid_argument for anything else.
CudaChoice cuda_choice();

// RNNFAST_CUDA_PROCESSORS, for tests: the multiprocessors that plans are to count on, `all` or fewer, so that a
// layer of a small test is laid out as a large one. Throws likewise for what is no positive number.
int cuda_processors(int all);

// cuda_architectures, cuda_devices, explain_cuda; see rnnfast/_C.pyi.
void define_explain_cuda(pybind11::module_& m);

}  // namespace rnnfast
