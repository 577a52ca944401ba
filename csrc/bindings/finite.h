// SPDX-License-Identifier: Apache-2.0
// nan_policy="raise": the first state, or error signal, that is not finite, in the order in which it arose.
#pragma once

#include "bindings/layer_ops.h"

namespace rnnfast {

// After a forward pass. y [T, B, D*P] or [N, D*P]; cells [D, N, H] or shape [0]; on another device they are reduced
// there, which waits for it, and copied here only where that finds something. Throws std::runtime_error
// (RuntimeError) that names layer, direction, step and sample. Of a segment: its direction, and its first step.
void check_states(const LayerCall& call, const LayerSizes& sizes, const at::Tensor& y, const at::Tensor& cells,
                  int64_t direction = 0, int64_t begin = 0);

// And of a whole layer: c_n [D, B, H] where its dtype holds less than the c of the steps.
void check_final(const LayerCall& call, const LayerSizes& sizes, const at::Tensor& c_n);

// After a backward pass; record [D, N, kRecorded], on the CPU.
void check_signals(const LayerCall& call, const LayerSizes& sizes, const at::Tensor& record, int64_t direction = 0,
                   int64_t begin = 0);

}  // namespace rnnfast
