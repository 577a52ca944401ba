// SPDX-License-Identifier: Apache-2.0
// AVX-512: 16 floats, 32 registers.
#include "cpu/targets/common.h"

#if defined(__x86_64__)

RNNFAST_TARGET_BEGIN(RNNFAST_AVX512_FEATURES)
#define RNNFAST_NAMESPACE rnnfast_avx512
#define RNNFAST_VECTOR_BYTES 64
#define RNNFAST_MASKS 512
#include "cpu/target.h"
RNNFAST_TARGET_END

namespace rnnfast {
extern const Kernels k_avx512;
constexpr Kernels k_avx512 = rnnfast_avx512::make_kernels("avx512");
}  // namespace rnnfast

#endif  // defined(__x86_64__)
