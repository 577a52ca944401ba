// SPDX-License-Identifier: Apache-2.0
// AVX2 and FMA: 8 floats, 16 registers.
#include "cpu/targets/common.h"

#if defined(__x86_64__)

RNNFAST_TARGET_BEGIN(RNNFAST_AVX2_FEATURES)
#define RNNFAST_NAMESPACE rnnfast_avx2
#define RNNFAST_VECTOR_BYTES 32
#define RNNFAST_MASKS 256
#include "cpu/target.h"
RNNFAST_TARGET_END

namespace rnnfast {
extern const Kernels k_avx2;
constexpr Kernels k_avx2 = rnnfast_avx2::make_kernels("avx2");
}  // namespace rnnfast

#endif  // defined(__x86_64__)
