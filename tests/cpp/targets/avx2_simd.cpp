// SPDX-License-Identifier: Apache-2.0
#include "simd_checks.h"

#if defined(__x86_64__)

RNNFAST_TARGET_BEGIN(RNNFAST_AVX2_FEATURES)
#define RNNFAST_NAMESPACE rnnfast_avx2_simd
#define RNNFAST_VECTOR_BYTES 32
#define RNNFAST_MASKS 256
#include "simd_checks_body.h"
RNNFAST_TARGET_END

int simd_checks_avx2(void* page_start, void* page_end) {
  return rnnfast_avx2_simd::simd_checks("avx2", page_start, page_end);
}

#endif  // defined(__x86_64__)
