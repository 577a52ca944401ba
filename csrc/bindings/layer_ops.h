// SPDX-License-Identifier: Apache-2.0
// The layer ops, one a cell. Shapes: docs/architecture.md, "The ops".
#pragma once

#include <ATen/core/List.h>

#include <tuple>

#include "bindings/layer_checks.h"
#include "bindings/layer_options.h"

namespace rnnfast {

// y, h_n, c_n, saved, cells
using LayerResult = std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor>;
// grad_x, grad_h0, grad_c0, grad_weights
using LayerGradients = std::tuple<at::Tensor, at::Tensor, at::Tensor, std::vector<at::Tensor>>;

using LayerOp = LayerResult(const at::Tensor& x, const OptionalTensor& h0, const OptionalTensor& c0,
                            at::TensorList weights, const OptionalTensor& batch_sizes, bool has_biases,
                            bool bidirectional, bool save, double limit, at::IntArrayRef bptt);
using LayerBackwardOp = LayerGradients(const OptionalTensor& grad_y, const OptionalTensor& grad_h_n,
                                       const OptionalTensor& grad_c_n, const at::Tensor& x,
                                       const OptionalTensor& h0, const OptionalTensor& c0, at::TensorList weights,
                                       const OptionalTensor& batch_sizes, bool has_biases, bool bidirectional,
                                       const at::Tensor& y, const at::Tensor& saved, const at::Tensor& cells,
                                       c10::List<bool> output_mask, double limit, at::IntArrayRef bptt);

// A layer's inputs, as every op and its autograd have them.
struct LayerCall {
  CellKind kind;
  at::Tensor x;
  OptionalTensor h0, c0;
  std::vector<at::Tensor> weights;
  OptionalTensor batch_sizes;
  bool has_biases = false, bidirectional = false;
  LayerOptions options;
};

// An op's implementation under a dispatch key, made of a function of the call: what TORCH_LIBRARY_IMPL registers.
template <CellKind kKind, LayerResult (*kRun)(const LayerCall& call, bool save)>
LayerResult layer_op(const at::Tensor& x, const OptionalTensor& h0, const OptionalTensor& c0,
                     at::TensorList weights, const OptionalTensor& batch_sizes, bool has_biases, bool bidirectional,
                     bool save, double limit, at::IntArrayRef bptt) {
  return kRun({kKind, x, h0, c0, weights.vec(), batch_sizes, has_biases, bidirectional,
               LayerOptions::read(kKind, limit, bptt, x.scalar_type())},
              save);
}

using LayerBackwardRun = LayerGradients(const LayerCall& call, const OptionalTensor& grad_y,
                                        const OptionalTensor& grad_h_n, const OptionalTensor& grad_c_n,
                                        const at::Tensor& y, const at::Tensor& saved, const at::Tensor& cells,
                                        const c10::List<bool>& output_mask);

template <CellKind kKind, LayerBackwardRun* kRun>
LayerGradients layer_backward_op(const OptionalTensor& grad_y, const OptionalTensor& grad_h_n,
                                 const OptionalTensor& grad_c_n, const at::Tensor& x, const OptionalTensor& h0,
                                 const OptionalTensor& c0, at::TensorList weights,
                                 const OptionalTensor& batch_sizes, bool has_biases, bool bidirectional,
                                 const at::Tensor& y, const at::Tensor& saved, const at::Tensor& cells,
                                 c10::List<bool> output_mask, double limit, at::IntArrayRef bptt) {
  return kRun({kKind, x, h0, c0, weights.vec(), batch_sizes, has_biases, bidirectional,
               LayerOptions::read(kKind, limit, bptt, x.scalar_type())},
              grad_y, grad_h_n, grad_c_n, y, saved, cells, output_mask);
}

// Through the dispatcher, to whatever backend the tensors ask for.
LayerResult call_layer(const LayerCall& call, bool save);
LayerGradients call_layer_backward(const LayerCall& call, const OptionalTensor& grad_y,
                                   const OptionalTensor& grad_h_n, const OptionalTensor& grad_c_n,
                                   const at::Tensor& y, const at::Tensor& saved, const at::Tensor& cells,
                                   const c10::List<bool>& output_mask);

struct BackwardTensors;  // bindings/run.h

// What a backward pass reads, contiguous, and the gradients that are asked for, allocated (zero where there is no
// row).
BackwardTensors backward_tensors(const LayerCall& call, const LayerSizes& s, const OptionalTensor& grad_y,
                                 const OptionalTensor& grad_h_n, const OptionalTensor& grad_c_n,
                                 const at::Tensor& y, const at::Tensor& saved, const at::Tensor& cells,
                                 const c10::List<bool>& output_mask);

// The same call on float32 tensors; differentiable where autograd is on.
LayerCall in_float(const LayerCall& call);

inline OptionalTensor optional(const at::Tensor& t) { return t.defined() ? OptionalTensor(t) : std::nullopt; }
inline at::Tensor tensor_or_undefined(const OptionalTensor& t) { return t ? *t : at::Tensor(); }

}  // namespace rnnfast
