// SPDX-License-Identifier: Apache-2.0
// What both persistent scans share: how a block's threads share out its (unit, sample) pairs, and which kernel a
// plan means.
#pragma once

#include "cuda/product_mma.h"
#include "cuda/scan.h"
#include "cuda/unit.h"

namespace RNNFAST_NAMESPACE {

// Pairs (unit, sample) of a block: a thread has one unit, and of each pass's samples every lanes-th. So what it
// carries from step to step, and what it knows of the unit, stays with it.
struct ScanPairs {
  int unit, sample, lanes;  // of the layer; first of a pass; step
  bool owns;                // has any pair

  RNNFAST_DEVICE ScanPairs(int H, int units)
      : unit(block_index() * units + thread_index() % units),
        sample(thread_index() / units),
        lanes(kScanThreads / units),
        owns(sample < lanes && unit < (RNNFAST_MUTATION("scan: tail mask") ? H - 1 : H)) {}

  // The unit within its block: computed where it is wanted, since registers are scarcer than the time for it.
  RNNFAST_DEVICE int row(int units) const { return unit - block_index() * units; }
};

inline Status scan_error(const char* text) { return {"persistent scan", text}; }

// launcher.template run<Product>() for the product that a plan means.
template <class S, class Launcher>
Status choose_fma(const CudaPlan& plan, const Launcher& launcher) {
  const int tile = fma_slice::tile_columns(plan.columns, sizeof(S));
  if (tile == 1) return launcher.template run<ProductFma<S, 1>>();
  if constexpr (sizeof(S) == 4)
    if (tile == 2) return launcher.template run<ProductFma<S, 2>>();
  return launcher.template run<ProductFma<S, fma_slice::kMaxColumns>>();
}

template <class S, bool kBackward, class Launcher>
Status choose_mma(int rows, const Launcher& launcher) {
  if constexpr (sizeof(S) != 8) {
    switch (mma_slice::row_tiles(rows, kBackward)) {
      case 1:
        return launcher.template run<ProductMma<S, 1>>();
      case 2:
        return launcher.template run<ProductMma<S, 2>>();
    }
    if constexpr (!kBackward)
      if (mma_slice::row_tiles(rows, kBackward) == 4) return launcher.template run<ProductMma<S, 4>>();
  }
  return scan_error("no tensor-core kernel for this slice");
}

inline bool pack_aligned(const void* p) { return reinterpret_cast<uintptr_t>(p) % kPackBytes == 0; }

// What is wrong with a plan for a scan of B samples and H units, if anything.
inline Status check_scan(const CudaPlan& plan, bool backward, int gates, int T, int B, int H, int value_bytes) {
  if (T < 1 || B < 1 || H < 1) return scan_error("T, B and H must be positive");
  if (plan.path != CudaPath::kPersistent) return scan_error("the plan is for another path");
  if (plan.directions < 1 || plan.directions > 2) return scan_error("one or two directions");
  if (plan.columns < 1 || !scan_fits(plan.product, backward, gates, plan.units))
    return scan_error("the plan's units or columns are beyond the kernels");
  if (plan.blocks != ceil_div(H, plan.units)) return scan_error("the plan's blocks do not cover the units");
  if (plan.threads != kScanThreads) return scan_error("the plan's threads are not the kernels'");
  if (plan.shared_bytes <
      scan_memory(plan.product, backward, gates, plan.units, H, plan.columns, value_bytes).bytes)
    return scan_error("the plan's shared memory is too small");
  return {};
}

}  // namespace RNNFAST_NAMESPACE
