// SPDX-License-Identifier: Apache-2.0
#include "simd_checks.h"

#define RNNFAST_NAMESPACE rnnfast_generic_simd
#define RNNFAST_VECTOR_BYTES 16
#include "simd_checks_body.h"

int simd_checks_generic(void* page_start, void* page_end) {
  return rnnfast_generic_simd::simd_checks("generic", page_start, page_end);
}
