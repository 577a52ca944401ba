// SPDX-License-Identifier: Apache-2.0
// The layer driver on the emulated device, for NumPy arrays. Shapes: docs/architecture.md, "The ops".
#pragma once

#include "bindings/emulator/arrays.h"

namespace RNNFAST_NAMESPACE {

// What the layer ops are told, and how it is to run.
struct LayerArguments {
  std::string cell;  // "lstm", "gru", "rnn_tanh", ...
  py::array x;       // [T, B, I] with contiguous rows; packed: [N, I]
  OptionalArray h0;  // [D, B, P]
  OptionalArray c0;  // [D, B, H]
  std::vector<py::array>
      weights;  // of each direction: w_ih, w_hh, b_ih and b_hh if has_biases, w_hr with a projection
  std::optional<std::vector<int64_t>> batch_sizes;
  bool has_biases = true, bidirectional = false;
  bool reversed = false;          // the one direction there is runs from the last step to the first
  std::string dtype = "float32";  // float64, float16, bfloat16
  std::string path = "best";      // of the plan: best, step, persistent
  bool tf32 = false;
};

struct BackwardArguments {
  OptionalArray grad_y, grad_h_n, grad_c_n;  // [T, B, D*P] or [N, D*P]; [D, B, P]; [D, B, H]
  py::array y, saved, cells;                 // what the forward pass returned
  std::vector<bool> mask;                    // x, h0, c0, and each weight: whether its gradient is asked for
  double clip_value = 0, clip_norm = 0;      // 0: none
  int64_t steps = 0;
  bool record = false;
  // Of a segment of a longer sequence: steps that follow it; packed, each sample's steps from its first one on.
  int64_t behind = 0;
  std::optional<std::vector<int64_t>> lengths;
};

// y, h_n, c_n, saved, cells as the ops return them, and `plan`.
py::dict run_layer_forward(const LayerArguments& arguments, bool save);
// grad_x, grad_h0, grad_c0 (None where not asked for), grad_weights, record [D, N, 3] (or None), and `plan`.
py::dict run_layer_backward(const LayerArguments& arguments, const BackwardArguments& backward);

}  // namespace RNNFAST_NAMESPACE
