// SPDX-License-Identifier: Apache-2.0
// The step kernels of each instruction-set target (cpu/step.h): a table of their own beside Kernels, since they are
// compiled in a file of their own, in seconds.
#pragma once

#include "cpu/kernels.h"

namespace rnnfast {

template <class T>
using StepKernel = void (*)(const ForwardJob<T>&, int index, int count);

struct StepKernels {
  const char* name;  // of the target
  StepKernel<float> f32[kCellCount];
  StepKernel<double> f64[kCellCount];

  StepKernel<float> of(CellKind kind, float) const { return f32[static_cast<int>(kind)]; }
  StepKernel<double> of(CellKind kind, double) const { return f64[static_cast<int>(kind)]; }
};

// Those of a target. Throws std::logic_error where a target was built without.
const StepKernels& step_kernels(const Kernels& target);

}  // namespace rnnfast
