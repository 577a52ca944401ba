// SPDX-License-Identifier: Apache-2.0
// The step kernels for AVX-512.
#include "cpu/step_kernels.h"
#include "cpu/targets/common.h"

#if defined(__x86_64__)

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512dq,avx512bw,avx512vl,avx2,fma,bmi,bmi2"))), \
                             apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512dq,avx512bw,avx512vl,avx2,fma,bmi,bmi2")
#endif
#define RNNFAST_NAMESPACE rnnfast_avx512
#define RNNFAST_VECTOR_BYTES 64
#include "cpu/step.h"

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

namespace rnnfast {
extern const StepKernels k_avx512_step;
constexpr StepKernels k_avx512_step = rnnfast_avx512::make_step_kernels("avx512");
}  // namespace rnnfast

#endif  // defined(__x86_64__)
