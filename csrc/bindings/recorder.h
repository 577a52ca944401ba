// SPDX-License-Identifier: Apache-2.0
// Where the backward pass leaves what it has recorded, for rnnfast.diagnostics: backward passes may run in any
// thread, and after the recorder was closed.
#pragma once

#include <ATen/core/Tensor.h>

#include <utility>
#include <vector>

#include "bindings/layer_ops.h"

namespace rnnfast {

using Recording = std::pair<int64_t, at::Tensor>;  // layer, [D, T, kFlow + gates] in float64

// Columns of a recording: mean and maximum over the batch of |dL/dh| and of |dL/dc|, the fraction limited; then for
// each gate the fraction saturated.
constexpr int kFlow = 5;

int64_t open_recorder();                                 // its number, from 1 on
std::vector<Recording> take_recorded(int64_t recorder);  // what has come since, oldest first
void close_recorder(int64_t recorder);
bool is_recording(int64_t recorder);

// A backward pass of a layer: a recording [D, T, kFlow + gates]; all of it, or a segment's part [steps, ...], from
// what the kernels wrote (record [D, N, kRecorded], on the CPU) and what the forward pass left, on its device,
// whose gates are counted there; and its way to the recorder.
at::Tensor empty_flow(const LayerCall& call, const LayerSizes& sizes);
void fill_flow(const LayerCall& call, const LayerSizes& sizes, const at::Tensor& record, const at::Tensor& y,
               const at::Tensor& saved, const at::Tensor& flow);
void keep_flow(const LayerCall& call, at::Tensor flow);

}  // namespace rnnfast
