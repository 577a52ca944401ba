// SPDX-License-Identifier: Apache-2.0
// Where the backward pass leaves what it has recorded, for rnnfast.diagnostics: backward passes may run in any
// thread, several at once, and after the recorder was closed. A recorder holds the newest of them only.
#pragma once

#include <ATen/core/Tensor.h>

#include <utility>
#include <vector>

#include "bindings/layer_ops.h"

namespace rnnfast {

using Recording = std::pair<int64_t, at::Tensor>;  // layer, [D, T, kFlow + gates] in float64

// Columns of a recording: mean and maximum over the batch of |dL/dh| and of |dL/dc|, the fraction limited, the
// fraction of samples into which gradient comes from outside (grad_y, and at their last step grad_h_n and
// grad_c_n); then for each gate the fraction saturated.
enum FlowColumn { kDh, kDhMax, kDc, kDcMax, kLimited, kInjected, kFlow };

// Its number, from 1 on; or, if given, one that was closed, opened again: compiled graphs hold the number. Throws
// (RuntimeError in Python) for one that is open, or was never given.
int64_t open_recorder(int64_t again = 0);
// The layers that the newest backward pass (the one that began last) has reached so far, in its order. Of several
// calls of a module in one pass: of that which the pass reaches last, the first one made.
std::vector<Recording> recorded(int64_t recorder);
void close_recorder(int64_t recorder);  // and forgets it
bool is_recording(int64_t recorder);

// A backward pass of a layer: a recording [D, T, kFlow + gates], of which kInjected is filled; the rest of it, or
// of a segment's part [steps, ...], from what the kernels wrote (record [D, N, kRecorded], on the CPU) and what the
// forward pass left, on its device, whose gates are counted there; and its way to the recorder.
at::Tensor begin_flow(const LayerCall& call, const LayerSizes& sizes, const OptionalTensor& grad_y,
                      const OptionalTensor& grad_h_n, const OptionalTensor& grad_c_n);
void fill_flow(const LayerCall& call, const LayerSizes& sizes, const at::Tensor& record, const at::Tensor& y,
               const at::Tensor& saved, const at::Tensor& flow);
void keep_flow(const LayerCall& call, at::Tensor flow);

}  // namespace rnnfast
