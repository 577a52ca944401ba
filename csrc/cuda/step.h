// SPDX-License-Identifier: Apache-2.0
// The step path's own part of a step: everything but the recurrent product, which is a library's. One launch
// forward and one backward, plus those of a projection, and of limits by norm and recording.
#pragma once

#include "cuda/params.h"
#include "cuda/plan.h"
#include "cuda/primitives/launch.h"

namespace RNNFAST_NAMESPACE {

// Which samples a step has. Those from had_step on begin with it, those from has_next on end with it.
struct StepRows {
  int64_t row = 0;     // of its first sample, among the N rows
  int64_t before = 0;  // of the first sample of the step before, in processing order
  int t = 0;
  int active = 0, had_step = 0, has_next = 0;
};

template <class S>
struct StepForward {
  ScanForwardDirection<S> direction;      // but w_hh, y; h_n: null with a projection
  const Compute<S>* recurrent = nullptr;  // [recurrent_rows, G*H]: U h_{t-1}, where gates_x do not contain it
  int recurrent_rows = 0;                 // samples after these have none
  int64_t gates_row = 0;                  // of direction.gates_x: the first sample's
  S* output = nullptr;                    // h of sample b at output + b * output_stride
  int64_t output_stride = 0;
  StepRows rows;
  int H = 0, variant = 0;
};

template <class Cell, class S>
Status step_forward(const StepForward<S>& step, Stream stream);

template <class S>
struct StepBackward {
  ScanBackwardDirection<S> direction;  // delta: [N, kDelta*H]; carried: [B, H]
  DeviceSequence sequence;
  Bptt bptt;                     // steps and behind as kernel_bptt makes them
  Compute<S>* record = nullptr;  // [N, kRecorded] or null
  int64_t y_stride = 0;
  const Compute<S>* returned = nullptr;  // [has_next, P]: delta_{t+1} U
  Compute<S>* hidden_factor = nullptr;  // [B] each, with limits by norm: what dL/dh_t and dL/dc_t are multiplied by
  Compute<S>* cell_factor = nullptr;
  // With a projection.
  S* grad_hidden = nullptr;                 // [N, P]: the total dL/dh_t, limited
  const Compute<S>* grad_output = nullptr;  // [active, H]: that W_hr, the gradient of the cell's output
  S* cell_output = nullptr;                 // [N, H]: the cell's output, once more
  StepRows rows;
  int H = 0, P = 0, variant = 0;
  bool reverse = false;
};

// In this order; the first three where they apply. Writes hidden_factor (with limits by norm) and record.
template <class Cell, class S>
Status step_hidden_norms(const StepBackward<S>& step, Stream stream);
// Writes grad_hidden (with a projection).
template <class Cell, class S>
Status step_receive(const StepBackward<S>& step, Stream stream);
// Of cells with c: writes cell_factor (with limits by norm), and its share of record.
template <class Cell, class S>
Status step_cell_norms(const StepBackward<S>& step, Stream stream);
// Writes delta, carried, and with a projection cell_output.
template <class Cell, class S>
Status step_backward(const StepBackward<S>& step, Stream stream);
// Writes grad_h0 and grad_c0 of the samples that begin with the step; `returned` is its own delta U.
template <class Cell, class S>
Status step_initial(const StepBackward<S>& step, Stream stream);

// A block's kStepThreads threads take neighbouring units of one sample, or of several where H is small.

// log2 of the units a block takes: from a warp's to all its threads.
inline int step_unit_bits(int units) {
  int bits = 5;
  while ((1 << bits) < kStepThreads && (1 << bits) < units) ++bits;
  return bits;
}

// A grid over units (x) and samples (y), as StepPairs reads it.
inline Launch step_launch(int units, int samples) {
  const int bits = step_unit_bits(units), at_once = kStepThreads >> bits;
  constexpr int kMostBlocks = 65535;  // of a grid's second dimension; a block goes on to further samples
  Launch result;
  result.grid_x = (units - 1) / (1 << bits) + 1;
  result.grid_y = (samples - 1) / at_once + 1;
  if (result.grid_y > kMostBlocks) result.grid_y = kMostBlocks;
  result.block = result.max_threads = kStepThreads;
  return result;
}

// A thread's unit and samples.
struct StepPairs {
  int unit, sample, stride;  // samples sample, sample + stride, ...
  RNNFAST_DEVICE explicit StepPairs(int unit_bits) {
    const int at_once = kStepThreads >> unit_bits;
    unit = (block_index() << unit_bits) + (thread_index() & ((1 << unit_bits) - 1));
    sample = block_index_y() * at_once + (thread_index() >> unit_bits);
    stride = grid_blocks_y() * at_once;
  }
};

}  // namespace RNNFAST_NAMESPACE
