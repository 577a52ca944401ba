// SPDX-License-Identifier: Apache-2.0
// The boundary: every argument of the LSTM ops is checked here before any memory is touched.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <vector>

namespace rnnfast {

using OptionalTensor = std::optional<at::Tensor>;

struct LstmSizes {
  int64_t T = 0, B = 0, I = 0, H = 0, rows = 0;
  int directions = 1;
  bool packed = false;
  std::vector<int64_t> offsets;      // [T + 1], packed only
  std::vector<int64_t> batch_sizes;  // [T], packed only
};

// Throws c10::Error (RuntimeError in Python) that names operation, argument, what was expected and what it got.
LstmSizes check_lstm_inputs(const at::Tensor& x, const OptionalTensor& h0, const OptionalTensor& c0,
                            at::TensorList weights, const OptionalTensor& batch_sizes, bool has_biases,
                            bool bidirectional);

// Checks one further tensor of the op: defined, on the device and of the dtype of x, of this shape.
void check_like_x(const char* op, const char* name, const at::Tensor& tensor, const at::Tensor& x,
                  at::IntArrayRef shape);

}  // namespace rnnfast
