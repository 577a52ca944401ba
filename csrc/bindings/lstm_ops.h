// SPDX-License-Identifier: Apache-2.0
// The LSTM ops. Shapes: docs/architecture.md, "The ops".
#pragma once

#include <ATen/core/List.h>

#include <tuple>

#include "bindings/lstm_checks.h"

namespace rnnfast {

using LstmLayerResult = std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor>;
using LstmLayerGradients = std::tuple<at::Tensor, at::Tensor, at::Tensor, std::vector<at::Tensor>>;

// CPU implementations; no autograd.
LstmLayerResult lstm_layer_cpu(const at::Tensor& x, const OptionalTensor& h0, const OptionalTensor& c0,
                               at::TensorList weights, const OptionalTensor& batch_sizes, bool has_biases,
                               bool bidirectional, bool save);

LstmLayerGradients lstm_layer_backward_cpu(const OptionalTensor& grad_y, const OptionalTensor& grad_h_n,
                                           const OptionalTensor& grad_c_n, const at::Tensor& x,
                                           const OptionalTensor& h0, const OptionalTensor& c0,
                                           at::TensorList weights, const OptionalTensor& batch_sizes,
                                           bool has_biases, bool bidirectional, const at::Tensor& y,
                                           const at::Tensor& gates, const at::Tensor& cells,
                                           c10::List<bool> output_mask);

// Through the dispatcher, to whatever backend the tensors ask for.
LstmLayerResult call_lstm_layer(const at::Tensor& x, const OptionalTensor& h0, const OptionalTensor& c0,
                                at::TensorList weights, const OptionalTensor& batch_sizes, bool has_biases,
                                bool bidirectional, bool save);

LstmLayerGradients call_lstm_layer_backward(const OptionalTensor& grad_y, const OptionalTensor& grad_h_n,
                                            const OptionalTensor& grad_c_n, const at::Tensor& x,
                                            const OptionalTensor& h0, const OptionalTensor& c0,
                                            at::TensorList weights, const OptionalTensor& batch_sizes,
                                            bool has_biases, bool bidirectional, const at::Tensor& y,
                                            const at::Tensor& gates, const at::Tensor& cells,
                                            const c10::List<bool>& output_mask);

}  // namespace rnnfast
