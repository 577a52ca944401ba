// SPDX-License-Identifier: Apache-2.0
#include "simd_checks.h"

#if defined(__x86_64__)

RNNFAST_TARGET_BEGIN(RNNFAST_AVX512_FEATURES)
#define RNNFAST_NAMESPACE rnnfast_avx512_simd
#define RNNFAST_VECTOR_BYTES 64
#define RNNFAST_MASKS 512
#include "simd_checks_body.h"
RNNFAST_TARGET_END

int simd_checks_avx512(void* page_start, void* page_end) {
  return rnnfast_avx512_simd::simd_checks("avx512", page_start, page_end);
}

#endif  // defined(__x86_64__)
