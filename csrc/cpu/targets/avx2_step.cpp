// SPDX-License-Identifier: Apache-2.0
// The step kernels for AVX2 and FMA.
#include "cpu/step_kernels.h"
#include "cpu/targets/common.h"

#if defined(__x86_64__)

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,bmi,bmi2"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma,bmi,bmi2")
#endif
#define RNNFAST_NAMESPACE rnnfast_avx2
#define RNNFAST_VECTOR_BYTES 32
#include "cpu/step.h"

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

namespace rnnfast {
extern const StepKernels k_avx2_step;
constexpr StepKernels k_avx2_step = rnnfast_avx2::make_step_kernels("avx2");
}  // namespace rnnfast

#endif  // defined(__x86_64__)
