// SPDX-License-Identifier: Apache-2.0
// The boundary: every argument of the layer ops is checked here before any memory is touched.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <string>
#include <vector>

#include "bindings/layer_options.h"
#include "cells/list.h"
#include "core/params.h"
#include "cpu/plan.h"

namespace rnnfast {

using OptionalTensor = std::optional<at::Tensor>;

struct LayerSizes {
  int64_t T = 0, B = 0, I = 0, H = 0, P = 0, rows = 0;
  int directions = 1;
  bool packed = false, projection = false;
  bool reversed = false;             // the one direction runs from the last step to the first
  size_t weights_each = 0;           // tensors of a direction
  std::vector<int64_t> offsets;      // [T + 1], packed only
  std::vector<int64_t> batch_sizes;  // [T], packed only
  std::vector<int64_t> lengths;      // [B], packed only: the steps of each sample

  Sequence sequence() const {  // as long as this lives
    return {T, B, packed ? batch_sizes.data() : nullptr, packed ? offsets.data() : nullptr,
            packed ? lengths.data() : nullptr};
  }
  LayerShape shape(const CellInfo& cell, int element_bytes) const;
  std::vector<int64_t> y_shape() const;
  std::vector<int64_t> h_shape() const { return {directions, B, P}; }
  std::vector<int64_t> c_shape() const { return {directions, B, H}; }
};

inline bool is_reduced(at::ScalarType dtype) { return dtype == at::kHalf || dtype == at::kBFloat16; }
// The dtype in which a layer of `dtype` computes, saves and records.
inline at::ScalarType computed(at::ScalarType dtype) { return is_reduced(dtype) ? at::kFloat : dtype; }

// "rnnfast::lstm_layer", for messages.
std::string op_name(CellKind kind, bool backward = false);

// Throws c10::Error (RuntimeError in Python) that names operation, argument, what was expected and what it got.
// dtype of x: float32, float64, float16 or bfloat16. All tensors but batch_sizes are on x's device.
LayerSizes check_layer_inputs(CellKind kind, const at::Tensor& x, const OptionalTensor& h0,
                              const OptionalTensor& c0, at::TensorList weights, const OptionalTensor& batch_sizes,
                              bool has_biases, bool bidirectional);

// The parts of it, for callers whose weights were checked before.
void check_weights(CellKind kind, const std::string& op, at::TensorList weights, bool has_biases,
                   bool bidirectional, at::ScalarType dtype, at::Device device,
                   LayerSizes& sizes);  // fills I, H, P, directions, projection
void check_sequence(CellKind kind, const std::string& op, const at::Tensor& x, const OptionalTensor& h0,
                    const OptionalTensor& c0, const OptionalTensor& batch_sizes, LayerSizes& sizes);

// What a backward op is given besides; returns nothing, throws likewise. saved and cells are float32 for half
// dtypes.
void check_backward_inputs(CellKind kind, const LayerSizes& sizes, at::ScalarType dtype, at::Device device,
                           const OptionalTensor& grad_y, const OptionalTensor& grad_h_n,
                           const OptionalTensor& grad_c_n, const at::Tensor& y, const at::Tensor& saved,
                           const at::Tensor& cells, size_t mask_size, const LayerOptions& options);

// The entries of batch_sizes; also of a tensor that a transform of torch.func has wrapped.
std::vector<int64_t> read_batch_sizes(const at::Tensor& batch_sizes);

// Checks one further tensor of the op: defined, dense, of this dtype, shape and device.
void check_tensor(const std::string& op, const char* name, const at::Tensor& tensor, at::ScalarType dtype,
                  at::IntArrayRef shape, at::Device device = at::kCPU);

}  // namespace rnnfast
