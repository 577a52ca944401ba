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
  bool check = false;      // raise where a state or an error signal is not finite
  bool half = false;       // with `check`: h will be rounded to float16, which holds less than what computes it
  int64_t layer = 0;       // in its stack, for messages and records
  int64_t recorder = 0;    // bindings/recorder.h; 0: none
  int64_t slice = 0;  // under vmap with `check`: how many samples a slice of the larger batch has; 0: no slices

  // Of the op's arguments, x being of this dtype; throws (RuntimeError in Python) for what they cannot be.
  static LayerOptions read(CellKind kind, double limit, c10::IntArrayRef codes, c10::ScalarType dtype);
  // And back: [] where everything is as usual.
  std::vector<int64_t> codes() const;
};

// With recomputation: how many states of T > 0 steps are kept, one before every segment but the first.
inline int64_t kept_states(int64_t T, int64_t every) { return (T - 1) / every; }

// Raises NotImplementedError for derivatives that a limited or cut error signal does not have.
void check_no_control(const std::string& op, const LayerOptions& options, const char* what);

// Likewise for the forward mode, which has tensor operations in place of the kernels that recompute, check and
// record.
void check_no_options_in_forward_mode(const std::string& op, const LayerOptions& options);

}  // namespace rnnfast
