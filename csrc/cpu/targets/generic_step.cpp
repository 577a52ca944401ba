// SPDX-License-Identifier: Apache-2.0
// The step kernels in the baseline of the architecture.
#include "cpu/step_kernels.h"
#include "cpu/targets/common.h"

#define RNNFAST_NAMESPACE rnnfast_generic
#define RNNFAST_VECTOR_BYTES 16
#include "cpu/step.h"

namespace rnnfast {
extern const StepKernels k_generic_step;
constexpr StepKernels k_generic_step = rnnfast_generic::make_step_kernels("generic");
}  // namespace rnnfast
