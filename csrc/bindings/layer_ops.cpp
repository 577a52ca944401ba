// SPDX-License-Identifier: Apache-2.0
#include "bindings/layer_ops.h"

#include <c10/util/Exception.h>
#include <torch/library.h>

#include "bindings/layer_run.h"

namespace rnnfast {
namespace {

OptionalTensor in_float(const OptionalTensor& t) { return t ? OptionalTensor(t->to(at::kFloat)) : std::nullopt; }

std::vector<at::Tensor> in_float(at::TensorList tensors) {
  std::vector<at::Tensor> result;
  result.reserve(tensors.size());
  for (const at::Tensor& t : tensors) result.push_back(t.to(at::kFloat));
  return result;
}

void forward_cpu(CellKind kind, const LayerSizes& s, const HeldInputs& held, const LayerOutputs& out,
                 bool training) {
  if (held.x.scalar_type() == at::kFloat) {
    run_forward<float>(kind, kernels(), s, held, nullptr, out, training);
  } else {
    run_forward<double>(kind, kernels(), s, held, nullptr, out, training);
  }
}

void backward_cpu(CellKind kind, const LayerSizes& s, const HeldInputs& held, const BackwardTensors& t) {
  if (held.x.scalar_type() == at::kFloat) {
    run_backward<float>(kind, s, held, t);
  } else {
    run_backward<double>(kind, s, held, t);
  }
}

constexpr LayerPasses kCpuPasses{forward_cpu, backward_cpu};

LayerResult layer_cpu(const LayerCall& call, bool save) {
  const LayerSizes s = check_layer_inputs(call.kind, call.x, call.h0, call.c0, call.weights, call.batch_sizes,
                                          call.has_biases, call.bidirectional);
  const at::ScalarType dtype = call.x.scalar_type();
  if (is_reduced(dtype)) {
    auto [y, h_n, c_n, saved, cells] = layer_cpu(rnnfast::in_float(call), save);
    return {y.to(dtype), h_n.to(dtype), c_n.to(dtype), saved, cells};
  }
  return run_layer(call, s, kCpuPasses, save);
}

LayerGradients layer_backward_cpu(const LayerCall& call, const OptionalTensor& grad_y,
                                  const OptionalTensor& grad_h_n, const OptionalTensor& grad_c_n,
                                  const at::Tensor& y, const at::Tensor& saved, const at::Tensor& cells,
                                  const c10::List<bool>& output_mask) {
  const LayerSizes s = check_layer_inputs(call.kind, call.x, call.h0, call.c0, call.weights, call.batch_sizes,
                                          call.has_biases, call.bidirectional);
  const at::ScalarType dtype = call.x.scalar_type();
  check_backward_inputs(call.kind, s, dtype, at::kCPU, grad_y, grad_h_n, grad_c_n, y, saved, cells,
                        output_mask.size(), call.options);
  if (is_reduced(dtype)) {
    auto [gx, gh, gc, gw] = layer_backward_cpu(rnnfast::in_float(call), in_float(grad_y), in_float(grad_h_n),
                                               in_float(grad_c_n), y.to(at::kFloat), saved, cells, output_mask);
    for (at::Tensor& g : gw) g = g.to(dtype);
    return {gx.to(dtype), gh.to(dtype), gc.to(dtype), gw};
  }
  return run_layer_backward(call, s, kCpuPasses, grad_y, grad_h_n, grad_c_n, y, saved, cells, output_mask);
}

}  // namespace

LayerCall in_float(const LayerCall& call) {
  LayerCall result{call.kind,         call.x.to(at::kFloat),  in_float(call.h0),
                   in_float(call.c0), in_float(call.weights), call.batch_sizes,
                   call.has_biases,   call.bidirectional,     call.options};
  result.options.rounded = call.x.scalar_type() == at::kHalf ? LayerOptions::kHalf : LayerOptions::kBFloat16;
  return result;
}

BackwardTensors backward_tensors(const LayerCall& call, const LayerSizes& s, const OptionalTensor& grad_y,
                                 const OptionalTensor& grad_h_n, const OptionalTensor& grad_c_n,
                                 const at::Tensor& y, const at::Tensor& saved, const at::Tensor& cells,
                                 const c10::List<bool>& output_mask) {
  const bool has_cell = cell_info(call.kind).has_cell;
  const auto options = call.x.options();
  const auto gradient = [&](bool asked, at::IntArrayRef shape) {
    if (!asked) return at::empty({0}, options);
    return s.rows > 0 ? at::empty(shape, options) : at::zeros(shape, options);
  };
  BackwardTensors t;
  t.grad_x = gradient(output_mask.get(0), call.x.sizes());
  t.grad_h0 = gradient(output_mask.get(1), s.h_shape());
  t.grad_c0 = gradient(output_mask.get(2) && has_cell, s.c_shape());
  for (size_t i = 0; i < call.weights.size(); ++i)
    t.grad_weights.push_back(gradient(output_mask.get(3 + i), call.weights[i].sizes()));
  if (s.rows == 0) return t;
  t.y = y.contiguous(), t.saved = saved.contiguous(), t.cells = cells.contiguous();
  t.grad_y = contiguous_or_undefined(grad_y);
  t.grad_h_n = contiguous_or_undefined(grad_h_n);
  if (grad_c_n && has_cell) t.grad_c_n = grad_c_n->resolve_neg().contiguous();
  return t;
}

TORCH_LIBRARY(rnnfast, m) {
  const auto define = [&](const std::string& cell) {
    const std::string inputs =
        "Tensor x, Tensor? h0, Tensor? c0, Tensor[] weights, Tensor? batch_sizes, bool has_biases, bool "
        "bidirectional";
    const std::string forward = cell + "_layer(" + inputs +
                                ", bool save, float limit=0., int[] bptt=[]) -> (Tensor y, Tensor h_n, Tensor c_n, "
                                "Tensor saved, Tensor cells)";
    const std::string backward = cell + "_layer_backward(Tensor? grad_y, Tensor? grad_h_n, Tensor? grad_c_n, " +
                                 inputs +
                                 ", Tensor y, Tensor saved, Tensor cells, bool[] output_mask, float limit=0., "
                                 "int[] bptt=[]) -> (Tensor grad_x, "
                                 "Tensor grad_h0, Tensor grad_c0, Tensor[] grad_weights)";
    m.def(forward.c_str());
    m.def(backward.c_str());
  };
#define RNNFAST_DEFINE(name, Cell, variant) define(#name);
  RNNFAST_CELLS(RNNFAST_DEFINE)
#undef RNNFAST_DEFINE
}

TORCH_LIBRARY_IMPL(rnnfast, CPU, m) {
#define RNNFAST_IMPLEMENT(name, Cell, variant)                             \
  m.impl(#name "_layer", TORCH_FN((layer_op<CellKind::name, layer_cpu>))); \
  m.impl(#name "_layer_backward", TORCH_FN((layer_backward_op<CellKind::name, layer_backward_cpu>)));
  RNNFAST_CELLS(RNNFAST_IMPLEMENT)
#undef RNNFAST_IMPLEMENT
}

}  // namespace rnnfast
