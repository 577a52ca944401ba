// SPDX-License-Identifier: Apache-2.0
// For tests only: the AVX-512 shape (16 floats, its tiles, its blocking, its tails) on AVX2, where the compiler
// lowers each vector to two registers. So it is tested on machines without AVX-512; nobody would use it.
#include "cpu/targets/common.h"

#if defined(__x86_64__)

RNNFAST_TARGET_BEGIN(RNNFAST_AVX2_FEATURES)
#define RNNFAST_NAMESPACE rnnfast_wide
#define RNNFAST_VECTOR_BYTES 64
#define RNNFAST_MASKS 256
#include "cpu/target.h"
RNNFAST_TARGET_END

namespace rnnfast {
extern const Kernels k_wide;
constexpr Kernels k_wide = rnnfast_wide::make_kernels("wide");
}  // namespace rnnfast

#endif  // defined(__x86_64__)
