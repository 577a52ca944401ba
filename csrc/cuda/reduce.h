// SPDX-License-Identifier: Apache-2.0
// Reductions over a block, in a fixed order.
#pragma once

#include "cuda/primitives/memory.h"
#include "cuda/primitives/warp.h"

namespace RNNFAST_NAMESPACE {

struct Sum {
  template <class T>
  RNNFAST_DEVICE T operator()(T a, T b) const {
    return a + b;
  }
};
struct Largest {
  template <class T>
  RNNFAST_DEVICE T operator()(T a, T b) const {
    return a < b ? b : a;
  }
};

// x of all threads put together, in every one of them. parts: as many values as the block has warps. All threads.
template <class Operation, class T>
RNNFAST_DEVICE T block_reduce(Operation operation, T x, const SharedView<T>& parts) {
#pragma unroll
  for (int mask = kWarp / 2; mask > 0; mask /= 2) x = operation(x, shuffle_xor(x, mask));
  if (lane_index() == 0) parts.store(warp_index(), x);
  if (!RNNFAST_MUTATION("reduce: barrier")) sync_block();
  T result = parts.load(0);
  for (int w = 1; w < block_warps(); ++w) result = operation(result, parts.load(w));
  sync_block();  // before the next reduction writes
  return result;
}

}  // namespace RNNFAST_NAMESPACE
