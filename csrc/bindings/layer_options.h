// SPDX-License-Identifier: Apache-2.0
// What a layer op is told besides its tensors' form, by `float limit, int[] bptt`: see docs/architecture.md, "The
// ops".
#pragma once

#include <c10/core/ScalarType.h>
#include <c10/util/ArrayRef.h>

#include <string>
#include <vector>

#include "cells/list.h"
#include "core/params.h"

namespace rnnfast {

struct LayerOptions {
  Bptt bptt;
  int64_t checkpoint = 0;  // keep the states every so many steps, and recompute the rest; 0: keep everything
                           // -1: every sqrt(T) steps, rounded up
  bool check = false;      // raise where a state or an error signal is not finite
  // With `check`: what y, h_n and c_n will be rounded to, which holds less than what computes them.
  enum Rounded { kNot, kHalf, kBFloat16 } rounded = kNot;
  int64_t layer = 0;     // in its stack, for messages and records
  int64_t recorder = 0;  // bindings/recorder.h; 0: none
  int64_t slice = 0;     // under vmap with `check`: how many samples a slice of the larger batch has; 0: no slices

  // Of the op's arguments, x being of this dtype; throws (RuntimeError in Python) for what they cannot be.
  static LayerOptions read(CellKind kind, double limit, c10::IntArrayRef codes, c10::ScalarType dtype);
  // And back: [] where everything is as usual.
  std::vector<int64_t> codes() const;
  // Recomputation of T > 0 steps: those of a segment, and how many states are kept, one before each but the first.
  int64_t segment_steps(int64_t T) const;
  int64_t kept_states(int64_t T) const { return (T - 1) / segment_steps(T); }
};

// Raises NotImplementedError for derivatives that a limited or cut error signal does not have.
void check_no_control(const std::string& op, const LayerOptions& options, const char* what);

// Likewise for the forward mode, which has tensor operations in place of the kernels that recompute, check and
// record.
void check_no_options_in_forward_mode(const std::string& op, const LayerOptions& options);

}  // namespace rnnfast
