// SPDX-License-Identifier: Apache-2.0
// What the CUDA kernels are told. S: the storage type (float, double, Half, BFloat16); Compute<S>: float, or double
// for double, in which states are kept, sums accumulated and values saved for the backward pass.
//
// Pointers are the device's unless said otherwise. N rows: T*B, or the sum of batch_sizes. D directions. With two,
// y and its gradient hold both side by side: [N, D*P].
#pragma once

#include "core/params.h"
#include "cuda/primitives/types.h"

namespace RNNFAST_NAMESPACE {

// rnnfast::Sequence as a kernel sees it. Device memory, or null where dense.
struct DeviceSequence {
  int T = 0, B = 0;
  const int64_t* batch_sizes = nullptr;  // [T]
  const int64_t* offsets = nullptr;      // [T + 1]
  const int64_t* lengths = nullptr;      // [B], for truncated BPTT only

  RNNFAST_DEVICE int active(int t) const { return batch_sizes ? static_cast<int>(batch_sizes[t]) : B; }
  RNNFAST_DEVICE int64_t first_row(int t) const { return offsets ? offsets[t] : static_cast<int64_t>(t) * B; }
  RNNFAST_DEVICE int time_of(int p, bool reverse) const { return reverse ? T - 1 - p : p; }
  // How many samples had a step before (after) t in processing order; always a prefix of the batch.
  RNNFAST_DEVICE int active_before(int t, bool reverse) const {
    const int before = reverse ? t + 1 : t - 1;
    if (before < 0 || before >= T) return 0;
    const int a = active(before), b = active(t);
    return a < b ? a : b;
  }
  RNNFAST_DEVICE int active_after(int t, bool reverse) const { return active_before(t, !reverse); }
};

template <class S>
struct CudaForward {
  LayerInputs<S> in;            // in.sequence: host memory; kernels get a copy in the workspace (DeviceSequence)
  S* y = nullptr;               // [N, D*P]
  S* h_n = nullptr;             // [D, B, P]
  S* c_n = nullptr;             // [D, B, H], cells with c
  Compute<S>* saved = nullptr;  // [D, N, S*H], training only
  Compute<S>* cells = nullptr;  // [D, N, H], training only, cells with c
  bool training = false;
};

template <class S>
struct CudaBackward {
  LayerInputs<S> in;
  Bptt bptt;                     // limits by norm: step path only
  Compute<S>* record = nullptr;  // [D, N, kRecorded], or null
  const S* y = nullptr;          // what the forward pass returned
  const Compute<S>* saved = nullptr;
  const Compute<S>* cells = nullptr;
  const S* grad_y = nullptr;    // [N, D*P] or null
  const S* grad_h_n = nullptr;  // [D, B, P] or null
  const S* grad_c_n = nullptr;  // [D, B, H] or null
  S* grad_x = nullptr;          // [N, I] contiguous; null (here and below): not asked for
  S* grad_h0 = nullptr;         // [D, B, P]
  S* grad_c0 = nullptr;         // [D, B, H]
  S* grad_w_ih[2] = {nullptr, nullptr};
  S* grad_w_hh[2] = {nullptr, nullptr};
  S* grad_b_ih[2] = {nullptr, nullptr};
  S* grad_b_hh[2] = {nullptr, nullptr};
  S* grad_w_hr[2] = {nullptr, nullptr};
};

// One direction of a persistent launch, forward.
template <class S>
struct ScanForwardDirection {
  const S* w_hh = nullptr;  // [G*H, H]
  const S* b_ih = nullptr;  // [G*H] or null
  const S* b_hh = nullptr;  // [G*H] or null
  // x W_ih^T without biases: row r at gates_x + r * gates_stride, G*H values. In training it may stand where
  // `saved` is written: whoever writes a unit's saved values has read its gates_x before.
  const Compute<S>* gates_x = nullptr;
  int64_t gates_stride = 0;
  const S* h0 = nullptr;        // [B, H] or null
  const S* c0 = nullptr;        // [B, H] or null
  S* h_n = nullptr;             // [B, H]
  S* c_n = nullptr;             // [B, H]
  S* y = nullptr;               // row r at y + r * y_stride: this direction's columns
  Compute<S>* saved = nullptr;  // [N, S*H] or null
  Compute<S>* cells = nullptr;  // [N, H] or null
  S* hidden =
      nullptr;  // [2, B, exchange_ld] (footprint.h): h of this step and of the one before, exchanged by blocks
  Compute<S>* carried = nullptr;  // [B, H], for what goes from step to step (unit.h), where it has no better place
  unsigned* counter = nullptr;    // of the grid barrier, zero
  bool reverse = false;
};

template <class S>
struct ScanForward {
  DeviceSequence sequence;
  int H = 0,
      units = 0;  // hidden units; of a block (blockIdx.x owns units blockIdx.x * units ...; blockIdx.y: direction)
  int columns = 0;  // rows of the batch that one pass of the product takes
  int64_t y_stride = 0;
  int variant = 0;
  ScanForwardDirection<S> direction[2];
};

// One direction of a persistent launch, backward.
template <class S>
struct ScanBackwardDirection {
  const S* w_hh = nullptr;  // [G*H, H]
  const S* h0 = nullptr;
  const S* c0 = nullptr;
  const S* y = nullptr;  // as in ScanForwardDirection
  const Compute<S>* saved = nullptr;
  const Compute<S>* cells = nullptr;
  const S* grad_y = nullptr;      // row r at grad_y + r * y_stride, or null
  const S* grad_h_n = nullptr;    // [B, H] or null
  const S* grad_c_n = nullptr;    // [B, H] or null
  S* grad_h0 = nullptr;           // [B, H] or null
  S* grad_c0 = nullptr;           // [B, H] or null
  S* delta = nullptr;             // [N, kDelta*H], written once; blocks exchange it from step to step
  S* exchange = nullptr;          // [2, B, G, exchange_ld] (footprint.h), where H is not whole packs of 16 bytes
  Compute<S>* carried = nullptr;  // [B, H], as forward
  Compute<S>* signals = nullptr;  // [N, kSignals, H]: the error signals before their limits (unit.h), or null
  unsigned* counter = nullptr;
  bool reverse = false;
};

template <class S>
struct ScanBackward {
  DeviceSequence sequence;
  Bptt bptt;  // no limit by norm; steps and behind as kernel_bptt makes them
  int H = 0, units = 0, columns = 0;
  int64_t y_stride = 0;
  int variant = 0;
  ScanBackwardDirection<S> direction[2];
};

}  // namespace RNNFAST_NAMESPACE
