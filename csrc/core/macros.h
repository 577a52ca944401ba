// SPDX-License-Identifier: Apache-2.0
// The only thing that cell mathematics knows of CUDA, and the one inlining macro of the kernels.
#pragma once

#if defined(__CUDACC__)
#define RNNFAST_HD __host__ __device__
#else
#define RNNFAST_HD
#endif

// Kernels rely on inlining: accumulators must stay in registers across these calls.
#define RNNFAST_INLINE inline __attribute__((always_inline))
