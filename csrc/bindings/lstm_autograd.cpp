// SPDX-License-Identifier: Apache-2.0
// Autograd as torch's own ops have it: a Node with SavedVariables joins the forward and the backward op, both of
// which go through the dispatcher. All that depends on how torch owns its Nodes is in this file.
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/functions/utils.h>
#include <torch/csrc/autograd/saved_variable.h>
#include <torch/library.h>

#include "bindings/lstm_ops.h"

namespace rnnfast {
namespace {

using torch::autograd::Node;
using torch::autograd::SavedVariable;
using torch::autograd::variable_list;

OptionalTensor optional(const at::Tensor& t) { return t.defined() ? OptionalTensor(t) : std::nullopt; }
at::Tensor tensor_or_undefined(const OptionalTensor& t) { return t ? *t : at::Tensor(); }

// Inputs, in the order of its edges: x, h0, c0, weights.
struct LstmLayerBackward : public Node {
  SavedVariable x, h0, c0, batch_sizes, y, gates, cells;
  std::vector<SavedVariable> weights;
  bool has_biases = false, bidirectional = false, released = false;

  std::string name() const override { return "RnnfastLstmLayerBackward"; }

  void release_variables() override {
    for (SavedVariable* v : {&x, &h0, &c0, &batch_sizes, &y, &gates, &cells}) v->reset_data();
    for (SavedVariable& w : weights) w.reset_data();
    released = true;
  }

  variable_list apply(variable_list&& grads) override {
    TORCH_CHECK(!released, torch::autograd::ERR_BACKWARD_TWICE);
    std::vector<at::Tensor> w;
    w.reserve(weights.size());
    for (SavedVariable& saved : weights) w.push_back(saved.unpack());
    c10::List<bool> mask;
    bool any = false;
    for (size_t i = 0; i < 3 + weights.size(); ++i) {
      mask.push_back(task_should_compute_output(i));
      any = any || task_should_compute_output(i);
    }
    variable_list result(3 + weights.size());
    if (!any || !(grads[0].defined() || grads[1].defined() || grads[2].defined())) return result;
    auto [grad_x, grad_h0, grad_c0, grad_w] = call_lstm_layer_backward(
        optional(grads[0]), optional(grads[1]), optional(grads[2]), x.unpack(), optional(h0.unpack()),
        optional(c0.unpack()), w, optional(batch_sizes.unpack()), has_biases, bidirectional, y.unpack(getptr()),
        gates.unpack(getptr()), cells.unpack(getptr()), mask);
    if (mask.get(0)) result[0] = std::move(grad_x);
    if (mask.get(1)) result[1] = std::move(grad_h0);
    if (mask.get(2)) result[2] = std::move(grad_c0);
    for (size_t i = 0; i < weights.size(); ++i)
      if (mask.get(3 + i)) result[3 + i] = std::move(grad_w[i]);
    return result;
  }
};

LstmLayerResult lstm_layer_autograd(const at::Tensor& x, const OptionalTensor& h0, const OptionalTensor& c0,
                                    at::TensorList weights, const OptionalTensor& batch_sizes, bool has_biases,
                                    bool bidirectional, bool save) {
  const bool needs_grad = torch::autograd::compute_requires_grad(x, h0, c0, weights);
  c10::intrusive_ptr<LstmLayerBackward> node;
  if (needs_grad) {
    node = c10::make_intrusive<LstmLayerBackward>();
    node->set_next_edges(
        torch::autograd::collect_next_edges(x, tensor_or_undefined(h0), tensor_or_undefined(c0), weights));
    node->x = SavedVariable(x, false);
    node->h0 = SavedVariable(tensor_or_undefined(h0), false);
    node->c0 = SavedVariable(tensor_or_undefined(c0), false);
    node->batch_sizes = SavedVariable(tensor_or_undefined(batch_sizes), false);
    node->weights.reserve(weights.size());
    for (const at::Tensor& w : weights) node->weights.emplace_back(w, false);
    node->has_biases = has_biases;
    node->bidirectional = bidirectional;
  }
  LstmLayerResult result = [&] {
    at::AutoDispatchBelowADInplaceOrView below;
    return call_lstm_layer(x, h0, c0, weights, batch_sizes, has_biases, bidirectional, save || needs_grad);
  }();
  if (needs_grad) {
    auto& [y, h_n, c_n, gates, cells] = result;
    torch::autograd::set_history({y, h_n, c_n}, node);
    node->y = SavedVariable(y, true);
    node->gates = SavedVariable(gates, false);
    node->cells = SavedVariable(cells, false);
  }
  return result;
}

// Stands where the second derivative is not implemented yet, and says so when it is asked for.
struct NoDoubleBackward : public Node {
  std::string name() const override { return "RnnfastNoDoubleBackward"; }
  variable_list apply(variable_list&&) override {
    TORCH_CHECK_NOT_IMPLEMENTED(
        false,
        "rnnfast::lstm_layer_backward: double backward (create_graph=True) is not implemented yet; "
        "expected a first derivative only, got a request for the second");
  }
};

LstmLayerGradients lstm_layer_backward_autograd(const OptionalTensor& grad_y, const OptionalTensor& grad_h_n,
                                                const OptionalTensor& grad_c_n, const at::Tensor& x,
                                                const OptionalTensor& h0, const OptionalTensor& c0,
                                                at::TensorList weights, const OptionalTensor& batch_sizes,
                                                bool has_biases, bool bidirectional, const at::Tensor& y,
                                                const at::Tensor& gates, const at::Tensor& cells,
                                                c10::List<bool> output_mask) {
  const bool needs_grad = torch::autograd::compute_requires_grad(grad_y, grad_h_n, grad_c_n, x, h0, c0, weights);
  c10::intrusive_ptr<NoDoubleBackward> node;
  if (needs_grad) {
    node = c10::make_intrusive<NoDoubleBackward>();
    node->set_next_edges(torch::autograd::collect_next_edges(
        tensor_or_undefined(grad_y), tensor_or_undefined(grad_h_n), tensor_or_undefined(grad_c_n), x,
        tensor_or_undefined(h0), tensor_or_undefined(c0), weights));
  }
  LstmLayerGradients result = [&] {
    at::AutoDispatchBelowADInplaceOrView below;
    return call_lstm_layer_backward(grad_y, grad_h_n, grad_c_n, x, h0, c0, weights, batch_sizes, has_biases,
                                    bidirectional, y, gates, cells, output_mask);
  }();
  if (needs_grad) {
    auto& [grad_x, grad_h0, grad_c0, grad_w] = result;
    torch::autograd::set_history({grad_x, grad_h0, grad_c0}, node);
    torch::autograd::set_history(grad_w, node);
  }
  return result;
}

}  // namespace

LstmLayerResult call_lstm_layer(const at::Tensor& x, const OptionalTensor& h0, const OptionalTensor& c0,
                                at::TensorList weights, const OptionalTensor& batch_sizes, bool has_biases,
                                bool bidirectional, bool save) {
  static const auto op =
      c10::Dispatcher::singleton().findSchemaOrThrow("rnnfast::lstm_layer", "").typed<decltype(lstm_layer_cpu)>();
  return op.call(x, h0, c0, weights, batch_sizes, has_biases, bidirectional, save);
}

LstmLayerGradients call_lstm_layer_backward(const OptionalTensor& grad_y, const OptionalTensor& grad_h_n,
                                            const OptionalTensor& grad_c_n, const at::Tensor& x,
                                            const OptionalTensor& h0, const OptionalTensor& c0,
                                            at::TensorList weights, const OptionalTensor& batch_sizes,
                                            bool has_biases, bool bidirectional, const at::Tensor& y,
                                            const at::Tensor& gates, const at::Tensor& cells,
                                            const c10::List<bool>& output_mask) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("rnnfast::lstm_layer_backward", "")
                             .typed<decltype(lstm_layer_backward_cpu)>();
  return op.call(grad_y, grad_h_n, grad_c_n, x, h0, c0, weights, batch_sizes, has_biases, bidirectional, y, gates,
                 cells, output_mask);
}

TORCH_LIBRARY_IMPL(rnnfast, Autograd, m) {
  m.impl("lstm_layer", TORCH_FN(lstm_layer_autograd));
  m.impl("lstm_layer_backward", TORCH_FN(lstm_layer_backward_autograd));
}

}  // namespace rnnfast
