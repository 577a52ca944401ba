// SPDX-License-Identifier: Apache-2.0
// The body of a target: everything that is compiled for its instruction set. A target's .cpp includes the shared
// plain-data headers, says RNNFAST_TARGET_BEGIN, defines RNNFAST_NAMESPACE and RNNFAST_VECTOR_BYTES, and
// includes this. All templates live in the target's own namespace: one compiled for AVX-512 must never become the
// copy that the linker keeps for everyone.
#pragma once

#include "core/activations.h"
#include "cpu/backward.h"
#include "cpu/forward.h"
#include "cpu/step.h"

namespace RNNFAST_NAMESPACE {

template <class T>
void activation(Activation which, const T* in, T* out, int64_t n) {
  using V = TargetVec<T>;
  for (int64_t i = 0; i < n; i += V::kLanes) {
    const int valid = int(n - i < V::kLanes ? n - i : V::kLanes);
    const V x = load_first<V>(in + i, valid);
    const V y = which == Activation::kExp ? exp(x) : which == Activation::kTanh ? tanh(x) : sigmoid(x);
    store_first(out + i, y, valid);
  }
}

// Two FMAs a cycle need at least eight chains; kAccumulators are more than that on every target.
inline double fma_flops(int64_t rounds) {
  using V = TargetVec<float>;
  V acc[kAccumulators];
  for (int i = 0; i < kAccumulators; ++i) acc[i] = splat<V>(float(i));
  const V a = splat<V>(0.999999f), b = splat<V>(1e-6f);
  for (int64_t k = 0; k < rounds; ++k) {
#pragma GCC unroll 24
    for (int i = 0; i < kAccumulators; ++i) {
      acc[i] = fma(acc[i], a, b);
    }
  }
  V sum = acc[0];
  for (int i = 1; i < kAccumulators; ++i) sum = sum + acc[i];
  volatile float sink = sum_lanes(sum);
  (void)sink;
  return double(rounds) * kAccumulators * V::kLanes * 2;
}

// Reads n floats once, as fast as the memory behind them allows; returns their sum, so that nothing is left out.
inline float read_memory(const float* from, int64_t n) {
  using V = TargetVec<float>;
  constexpr int kAtOnce = 8;
  V sum[kAtOnce] = {};
  for (int64_t i = 0; i + kAtOnce * V::kLanes <= n; i += kAtOnce * V::kLanes)
#pragma GCC unroll 8
    for (int j = 0; j < kAtOnce; ++j) sum[j] = sum[j] + load<V>(from + i + j * V::kLanes);
  for (int j = 1; j < kAtOnce; ++j) sum[0] = sum[0] + sum[j];
  return sum_lanes(sum[0]);
}

template <class Cell, class T>
constexpr CellKernels<T> kCellKernels = {&layer_pack<Cell, T>, &layer_forward<Cell, T>, &layer_backward<Cell, T>,
                                         &layer_step<Cell, T>};

// constexpr, so that a table is data: no code of a target may run before its processor is known to support it.
constexpr Kernels make_kernels(const char* name) {
  return {name,
          RNNFAST_VECTOR_BYTES,
#define RNNFAST_KERNELS(name, Cell, variant) kCellKernels<Cell, float>,
          {RNNFAST_CELLS(RNNFAST_KERNELS)},
#undef RNNFAST_KERNELS
#define RNNFAST_KERNELS(name, Cell, variant) kCellKernels<Cell, double>,
          {RNNFAST_CELLS(RNNFAST_KERNELS)},
#undef RNNFAST_KERNELS
          &activation<float>,
          &activation<double>,
          &fma_flops,
          &read_memory};
}

}  // namespace RNNFAST_NAMESPACE
