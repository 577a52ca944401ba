// SPDX-License-Identifier: Apache-2.0
// The matrix products over many rows, and those of the step path, are the caller's: torch's library in the product,
// a plain loop in the emulator.
#pragma once

#include "cuda/primitives/launch.h"
#include "cuda/primitives/types.h"

namespace RNNFAST_NAMESPACE {

enum class Dtype { kFloat, kDouble, kHalf, kBFloat16 };

template <class S>
struct DtypeOf;
template <>
struct DtypeOf<float> {
  static constexpr Dtype value = Dtype::kFloat;
};
template <>
struct DtypeOf<double> {
  static constexpr Dtype value = Dtype::kDouble;
};
template <>
struct DtypeOf<Half> {
  static constexpr Dtype value = Dtype::kHalf;
};
template <>
struct DtypeOf<BFloat16> {
  static constexpr Dtype value = Dtype::kBFloat16;
};
template <class S>
constexpr Dtype kDtype = DtypeOf<S>::value;

// C = op(A) op(B) + beta C, all row-major: C [M, N], op(A) [M, K], op(B) [K, N]. ld: elements from row to row as
// stored. Sums are accumulated in float (double for double).
struct GemmCall {
  Dtype in = Dtype::kFloat, out = Dtype::kFloat;  // of A and B; of C: the same, or float for the 16-bit types
  bool transpose_a = false, transpose_b = false;
  int64_t M = 0, N = 0, K = 0;
  const void* a = nullptr;
  int64_t lda = 0;
  const void* b = nullptr;
  int64_t ldb = 0;
  void* c = nullptr;
  int64_t ldc = 0;
  bool accumulate = false;  // beta: 1 or 0
};

struct Gemm {
  void* self = nullptr;
  Status (*run)(void* self, const GemmCall& call, Stream stream) = nullptr;
  Status operator()(const GemmCall& call, Stream stream) const { return run(self, call, stream); }
};

}  // namespace RNNFAST_NAMESPACE
