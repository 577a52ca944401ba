// SPDX-License-Identifier: Apache-2.0
#include "emulator/gemm.h"

#include <vector>

namespace RNNFAST_NAMESPACE {
namespace {

template <class S, class C>
Status multiply(const GemmCall& call) {
  using V = Compute<S>;
  const S *const a = static_cast<const S*>(call.a), *const b = static_cast<const S*>(call.b);
  std::vector<V> sum(static_cast<size_t>(call.N));
  for (int64_t m = 0; m < call.M; ++m) {
    C* const c = static_cast<C*>(call.c) + m * call.ldc;
    for (int64_t n = 0; n < call.N; ++n) sum[static_cast<size_t>(n)] = call.accumulate ? widen(c[n]) : V(0);
    for (int64_t k = 0; k < call.K; ++k) {
      const V factor = widen(call.transpose_a ? a[k * call.lda + m] : a[m * call.lda + k]);
      for (int64_t n = 0; n < call.N; ++n)
        sum[static_cast<size_t>(n)] += factor * widen(call.transpose_b ? b[n * call.ldb + k] : b[k * call.ldb + n]);
    }
    for (int64_t n = 0; n < call.N; ++n) c[n] = narrow<C>(sum[static_cast<size_t>(n)]);
  }
  return {};
}

Status run(void*, const GemmCall& call, Stream) {
  const int64_t a_columns = call.transpose_a ? call.M : call.K, b_columns = call.transpose_b ? call.K : call.N;
  if (call.M < 0 || call.N < 0 || call.K < 0) return {"gemm", "a negative size"};
  if (call.lda < a_columns || call.ldb < b_columns || call.ldc < call.N) return {"gemm", "rows overlap"};
  const bool widened = call.out == Dtype::kFloat;
  switch (call.in) {
    case Dtype::kFloat:
      if (widened) return multiply<float, float>(call);
      break;
    case Dtype::kDouble:
      if (call.out == Dtype::kDouble) return multiply<double, double>(call);
      break;
    case Dtype::kHalf:
      if (widened) return multiply<Half, float>(call);
      if (call.out == Dtype::kHalf) return multiply<Half, Half>(call);
      break;
    case Dtype::kBFloat16:
      if (widened) return multiply<BFloat16, float>(call);
      if (call.out == Dtype::kBFloat16) return multiply<BFloat16, BFloat16>(call);
  }
  return {"gemm", "result of a type that the factors' products are not stored in"};
}

}  // namespace

Gemm host_gemm() { return {nullptr, run}; }

}  // namespace RNNFAST_NAMESPACE
