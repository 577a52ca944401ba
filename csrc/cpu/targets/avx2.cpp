// SPDX-License-Identifier: Apache-2.0
// AVX2 and FMA: 8 floats, 16 registers.
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
#include "cpu/target.h"

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

namespace rnnfast {
extern const Kernels k_avx2;
constexpr Kernels k_avx2 = rnnfast_avx2::make_kernels("avx2");
}  // namespace rnnfast

#endif  // defined(__x86_64__)
