// SPDX-License-Identifier: Apache-2.0
// Storage types and their arithmetic: half and bfloat16 are stored, everything is computed in float (double in
// double).
#pragma once

#include "cuda/primitives/platform.h"

#if defined(__CUDACC__) || defined(RNNFAST_CUDA)
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#endif

namespace RNNFAST_NAMESPACE {

#if defined(__CUDACC__) || defined(RNNFAST_CUDA)
using Half = __half;
using BFloat16 = __nv_bfloat16;
#else
using Half = emulator::Half;  // 16 bits each; conversions round to nearest even, as the device's do
using BFloat16 = emulator::BFloat16;
#endif

// The type in which values of storage type S are computed and states are kept.
template <class S>
struct ComputeType {
  using type = float;
};
template <>
struct ComputeType<double> {
  using type = double;
};
template <class S>
using Compute = typename ComputeType<S>::type;

RNNFAST_DEVICE float widen(float x) { return x; }
RNNFAST_DEVICE double widen(double x) { return x; }

template <class S>
RNNFAST_DEVICE S narrow(Compute<S> x);
template <>
RNNFAST_DEVICE float narrow<float>(float x) {
  return x;
}
template <>
RNNFAST_DEVICE double narrow<double>(double x) {
  return x;
}

#if defined(__CUDACC__) || defined(RNNFAST_CUDA)
RNNFAST_DEVICE float widen(Half x) { return __half2float(x); }
RNNFAST_DEVICE float widen(BFloat16 x) { return __bfloat162float(x); }
template <>
RNNFAST_DEVICE Half narrow<Half>(float x) {
  return __float2half_rn(x);
}
template <>
RNNFAST_DEVICE BFloat16 narrow<BFloat16>(float x) {
  return __float2bfloat16_rn(x);
}
#else
inline float widen(Half x) { return emulator::to_float(x); }
inline float widen(BFloat16 x) { return emulator::to_float(x); }
template <>
inline Half narrow<Half>(float x) {
  return emulator::to_half(x);
}
template <>
inline BFloat16 narrow<BFloat16>(float x) {
  return emulator::to_bfloat16(x);
}
#endif

// N neighbouring values moved by one instruction: at most 16 bytes, and aligned to their size.
template <class T, int N>
struct alignas(sizeof(T) * N) Pack {
  static_assert(sizeof(T) * N <= 16 && (N & (N - 1)) == 0, "one load or store of at most 16 bytes");
  T value[N];
};

}  // namespace RNNFAST_NAMESPACE
