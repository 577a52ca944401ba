// SPDX-License-Identifier: Apache-2.0
// What the plan for GPUs says, for Python; and the path that the environment asks for.
#pragma once

#include <pybind11/pybind11.h>

#include "cuda/plan.h"

namespace rnnfast {

// RNNFAST_CUDA_PATH, for tests and measurements: step, persistent, or nothing (the plan's choice). Throws
// std::invalid_argument for anything else.
CudaChoice cuda_choice();

// cuda_architectures, cuda_devices, explain_cuda; see rnnfast/_C.pyi.
void define_explain_cuda(pybind11::module_& m);

}  // namespace rnnfast
