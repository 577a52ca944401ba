// SPDX-License-Identifier: Apache-2.0
// Autograd as torch's own ops have it: a Node with SavedVariables joins the forward and the backward op, both of
// which go through the dispatcher. All that depends on how torch owns its Nodes is in this file.
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/functions/utils.h>
#include <torch/csrc/autograd/saved_variable.h>
#include <torch/library.h>

#include <mutex>
#include <utility>

#include "bindings/layer_ops.h"
#include "bindings/layer_tensor.h"

namespace rnnfast {
namespace {

using torch::autograd::Node;
using torch::autograd::SavedVariable;
using torch::autograd::variable_list;

// A layer's inputs, kept for a backward pass.
struct SavedCall {
  CellKind kind = CellKind::lstm;
  SavedVariable x, h0, c0, batch_sizes;
  std::vector<SavedVariable> weights;
  bool has_biases = false, bidirectional = false;
  LayerOptions options;

  void save(const LayerCall& call) {
    kind = call.kind;
    x = SavedVariable(call.x, false);
    h0 = SavedVariable(tensor_or_undefined(call.h0), false);
    c0 = SavedVariable(tensor_or_undefined(call.c0), false);
    batch_sizes = SavedVariable(tensor_or_undefined(call.batch_sizes), false);
    weights.reserve(call.weights.size());
    for (const at::Tensor& w : call.weights) weights.emplace_back(w, false);
    has_biases = call.has_biases;
    bidirectional = call.bidirectional;
    options = call.options;
  }

  LayerCall unpack() {
    LayerCall call{kind,
                   x.unpack(),
                   optional(h0.unpack()),
                   optional(c0.unpack()),
                   {},
                   optional(batch_sizes.unpack()),
                   has_biases,
                   bidirectional,
                   options};
    call.weights.reserve(weights.size());
    for (SavedVariable& w : weights) call.weights.push_back(w.unpack());
    return call;
  }

  void reset() {
    for (SavedVariable* v : {&x, &h0, &c0, &batch_sizes}) v->reset_data();
    for (SavedVariable& w : weights) w.reset_data();
  }
};

// Inputs, in the order of its edges: x, h0, c0, weights.
struct LayerBackwardNode : public Node {
  SavedCall call;
  SavedVariable y, saved, cells;
  bool released = false;
  std::mutex mutex;  // two threads may go backward through one node

  std::string name() const override { return "RnnfastLayerBackward"; }

  void release_variables() override {
    const std::lock_guard<std::mutex> lock(mutex);
    call.reset();
    for (SavedVariable* v : {&y, &saved, &cells}) v->reset_data();
    released = true;
  }

  variable_list apply(variable_list&& grads) override {
    const std::lock_guard<std::mutex> lock(mutex);
    TORCH_CHECK(!released, torch::autograd::ERR_BACKWARD_TWICE);
    const size_t inputs = 3 + call.weights.size();
    c10::List<bool> mask;
    bool any = false;
    for (size_t i = 0; i < inputs; ++i) {
      mask.push_back(task_should_compute_output(i));
      any = any || task_should_compute_output(i);
    }
    variable_list result(inputs);
    if (!any || !(grads[0].defined() || grads[1].defined() || grads[2].defined())) return result;
    const LayerCall c = call.unpack();
    auto [grad_x, grad_h0, grad_c0, grad_w] =
        call_layer_backward(c, optional(grads[0]), optional(grads[1]), optional(grads[2]), y.unpack(getptr()),
                            saved.unpack(getptr()), cells.unpack(getptr()), mask);
    if (mask.get(0)) result[0] = std::move(grad_x);
    if (mask.get(1)) result[1] = std::move(grad_h0);
    if (mask.get(2)) result[2] = std::move(grad_c0);
    for (size_t i = 3; i < inputs; ++i)
      if (mask.get(i)) result[i] = std::move(grad_w[i - 3]);
    return result;
  }
};

// The gradients of the defined outputs, weighted by the defined weights, with respect to the inputs that are
// needed; undefined where there is none.
variable_list gradients(const variable_list& outputs, const variable_list& weights, const variable_list& inputs,
                        const std::vector<bool>& needed, bool create_graph) {
  variable_list from, with, to, result(inputs.size());
  for (size_t i = 0; i < outputs.size(); ++i) {
    if (!outputs[i].defined() || !weights[i].defined() || !outputs[i].requires_grad()) continue;
    if (outputs[i].sizes() != weights[i].sizes()) continue;  // an output that was not asked for
    from.push_back(outputs[i]);
    with.push_back(weights[i]);
  }
  for (size_t i = 0; i < inputs.size(); ++i)
    if (needed[i] && inputs[i].defined()) to.push_back(inputs[i]);
  if (from.empty() || to.empty()) return result;
  const variable_list grads = torch::autograd::grad(from, to, with, create_graph, create_graph, true);
  size_t next = 0;
  for (size_t i = 0; i < inputs.size(); ++i)
    if (needed[i] && inputs[i].defined()) result[i] = grads[next++];
  return result;
}

// The layer in differentiable operations, half precision computed in float (on CUDA; elsewhere it does not get
// here).
TensorLayer differentiable_layer(const LayerCall& call, bool save) {
  const at::ScalarType dtype = call.x.scalar_type();
  if (!is_reduced(dtype)) return layer_of_tensors(call, save);
  TensorLayer layer = layer_of_tensors(in_float(call), save);
  for (at::Tensor* t : {&layer.y, &layer.h_n, &layer.c_n}) *t = t->to(dtype);
  return layer;
}

// What the backward op computes, in differentiable tensor operations.
struct TensorBackward {
  variable_list sources;  // grad_y, grad_h_n, grad_c_n, x, h0, c0, weights: what `grads` is a function of
  variable_list grads;    // of x, h0, c0, weights; undefined where not asked for

  // differentiate: with respect to which sources it will be differentiated. mask: which gradients are asked for.
  TensorBackward(LayerCall c, variable_list incoming, const std::vector<bool>& differentiate,
                 const std::vector<bool>& mask) {
    for (size_t i = 0; i < 3; ++i) incoming[i] = place(incoming[i], differentiate[i]);
    const auto input = [&](const at::Tensor& t, size_t i) { return place(t, mask[i] || differentiate[3 + i]); };
    c.x = input(c.x, 0);
    c.h0 = optional(input(tensor_or_undefined(c.h0), 1));
    c.c0 = optional(input(tensor_or_undefined(c.c0), 2));
    for (size_t i = 0; i < c.weights.size(); ++i) c.weights[i] = input(c.weights[i], 3 + i);
    variable_list inputs{c.x, tensor_or_undefined(c.h0), tensor_or_undefined(c.c0)};
    inputs.insert(inputs.end(), c.weights.begin(), c.weights.end());
    const TensorLayer layer = differentiable_layer(c, false);
    grads = gradients({layer.y, layer.h_n, layer.c_n}, incoming, inputs, mask, true);
    sources = std::move(incoming);
    sources.insert(sources.end(), inputs.begin(), inputs.end());
  }

 private:
  // A place of its own in the graph, so that a gradient with respect to it counts no path through the others. (A
  // view keeps a forward-mode tangent; detach would not.)
  static at::Tensor place(const at::Tensor& t, bool differentiate) {
    if (!t.defined()) return t;
    at::Tensor own = t.view_as(t);
    if (differentiate && !own.requires_grad()) own.set_requires_grad(true);
    return own;
  }
};

// The derivative of the backward op, of any order. Inputs, in the order of its edges: grad_y, grad_h_n, grad_c_n,
// x, h0, c0, weights.
struct LayerDoubleBackwardNode : public Node {
  SavedCall call;
  SavedVariable grads[3];
  std::vector<bool> mask;  // what the backward op was asked for
  bool released = false;
  std::mutex mutex;

  std::string name() const override { return "RnnfastLayerDoubleBackward"; }

  void release_variables() override {
    const std::lock_guard<std::mutex> lock(mutex);
    call.reset();
    for (SavedVariable& g : grads) g.reset_data();
    released = true;
  }

  variable_list apply(variable_list&& seconds) override {
    // Not held over what follows, which runs the engine again.
    const auto [c, incoming] = [&] {
      const std::lock_guard<std::mutex> lock(mutex);
      TORCH_CHECK(!released, torch::autograd::ERR_BACKWARD_TWICE);
      return std::pair(call.unpack(), variable_list{grads[0].unpack(), grads[1].unpack(), grads[2].unpack()});
    }();
    check_no_control(op_name(call.kind), call.options, "double backward");
    const bool create_graph = at::GradMode::is_enabled();
    at::AutoGradMode grad_mode(true);
    std::vector<bool> needed;
    for (size_t i = 0; i < 6 + call.weights.size(); ++i) needed.push_back(task_should_compute_output(i));
    const TensorBackward first(c, incoming, needed, mask);
    return gradients(first.grads, seconds, first.sources, needed, create_graph);
  }
};

bool has_tangent(const LayerCall& call) {
  using torch::autograd::isFwGradDefined;
  return isFwGradDefined(call.x) || isFwGradDefined(call.h0) || isFwGradDefined(call.c0) ||
         torch::autograd::isFwGradDefinedTensorList(call.weights);
}

LayerResult layer_autograd(const LayerCall& call, bool save) {
  const at::ScalarType dtype = call.x.scalar_type();
  if (is_reduced(dtype) && !call.x.is_cuda()) {  // CUDA kernels take half precision as it is
    for (const at::Tensor& w : call.weights)
      TORCH_CHECK(w.scalar_type() == dtype, op_name(call.kind), ": weights: expected dtype ", dtype, ", got ",
                  w.scalar_type());
    for (const OptionalTensor* state : {&call.h0, &call.c0})
      TORCH_CHECK(!*state || (*state)->scalar_type() == dtype, op_name(call.kind), ": h0 or c0: expected dtype ",
                  dtype, ", got ", (*state)->scalar_type());
    auto [y, h_n, c_n, saved, cells] = call_layer(in_float(call), save);
    return {y.to(dtype), h_n.to(dtype), c_n.to(dtype), saved, cells};
  }
  if (has_tangent(call)) {
    check_no_options_in_forward_mode(op_name(call.kind), call.options);
    check_layer_inputs(call.kind, call.x, call.h0, call.c0, call.weights, call.batch_sizes, call.has_biases,
                       call.bidirectional);
    const TensorLayer layer = differentiable_layer(call, save);
    return {layer.y, layer.h_n, layer.c_n, layer.saved, layer.cells};
  }
  const OptionalTensor &h0 = call.h0, &c0 = call.c0;
  const bool needs_grad = torch::autograd::compute_requires_grad(call.x, h0, c0, at::TensorList(call.weights));
  c10::intrusive_ptr<LayerBackwardNode> node;
  if (needs_grad) {
    node = c10::make_intrusive<LayerBackwardNode>();
    node->set_next_edges(torch::autograd::collect_next_edges(
        call.x, tensor_or_undefined(h0), tensor_or_undefined(c0), at::TensorList(call.weights)));
    node->call.save(call);
  }
  LayerResult result = [&] {
    at::AutoDispatchBelowADInplaceOrView below;
    return call_layer(call, save || needs_grad);
  }();
  if (needs_grad) {
    auto& [y, h_n, c_n, saved, cells] = result;
    torch::autograd::set_history({y, h_n, c_n}, node);
    node->y = SavedVariable(y, true);
    node->saved = SavedVariable(saved, false);
    node->cells = SavedVariable(cells, false);
  }
  return result;
}

LayerGradients layer_backward_autograd(const LayerCall& call, const OptionalTensor& grad_y,
                                       const OptionalTensor& grad_h_n, const OptionalTensor& grad_c_n,
                                       const at::Tensor& y, const at::Tensor& saved, const at::Tensor& cells,
                                       const c10::List<bool>& output_mask) {
  const variable_list grads{tensor_or_undefined(grad_y), tensor_or_undefined(grad_h_n),
                            tensor_or_undefined(grad_c_n)};
  std::vector<bool> mask;
  for (bool asked : output_mask) mask.push_back(asked);
  const bool needs_grad = torch::autograd::compute_requires_grad(grad_y, grad_h_n, grad_c_n, call.x, call.h0,
                                                                 call.c0, at::TensorList(call.weights));
  if (has_tangent(call) || torch::autograd::isFwGradDefinedTensorList(grads)) {
    check_no_options_in_forward_mode(op_name(call.kind, true), call.options);
    TORCH_CHECK_NOT_IMPLEMENTED(call.options.recorder == 0, op_name(call.kind, true),
                                ": rnnfast.diagnostics.gradient_flow: expected no forward-mode differentiation of "
                                "a recorded backward pass");
    const LayerSizes s = check_layer_inputs(call.kind, call.x, call.h0, call.c0, call.weights, call.batch_sizes,
                                            call.has_biases, call.bidirectional);
    check_backward_inputs(call.kind, s, call.x.scalar_type(), call.x.device(), grad_y, grad_h_n, grad_c_n, y, saved,
                          cells, mask.size(), call.options);
    const bool keep_graph = at::GradMode::is_enabled();
    at::AutoGradMode grad_mode(true);
    TensorBackward formula(call, grads, std::vector<bool>(3 + mask.size(), false), mask);
    at::AutoGradMode outside(keep_graph);
    const auto given = [&](size_t i, at::IntArrayRef shape) {
      // The view leaves the graph of the formula behind where none is asked for, and keeps the tangent.
      if (formula.grads[i].defined()) return keep_graph ? formula.grads[i] : formula.grads[i].view(shape);
      return mask[i] ? at::zeros(shape, call.x.options()) : at::empty({0}, call.x.options());
    };
    std::vector<at::Tensor> weights;
    for (size_t i = 0; i < call.weights.size(); ++i) weights.push_back(given(3 + i, call.weights[i].sizes()));
    const bool has_cell = cell_info(call.kind).has_cell;
    return {given(0, call.x.sizes()), given(1, s.h_shape()),
            has_cell ? given(2, s.c_shape()) : at::empty({0}, call.x.options()), weights};
  }
  c10::intrusive_ptr<LayerDoubleBackwardNode> node;
  if (needs_grad) {
    node = c10::make_intrusive<LayerDoubleBackwardNode>();
    node->set_next_edges(
        torch::autograd::collect_next_edges(grads[0], grads[1], grads[2], call.x, tensor_or_undefined(call.h0),
                                            tensor_or_undefined(call.c0), at::TensorList(call.weights)));
    node->call.save(call);
    for (size_t i = 0; i < 3; ++i) node->grads[i] = SavedVariable(grads[i], false);
    node->mask = mask;
  }
  LayerGradients result = [&] {
    at::AutoDispatchBelowADInplaceOrView below;
    return call_layer_backward(call, grad_y, grad_h_n, grad_c_n, y, saved, cells, output_mask);
  }();
  if (needs_grad) {
    auto& [grad_x, grad_h0, grad_c0, grad_w] = result;
    variable_list outputs{grad_x, grad_h0, grad_c0};
    outputs.insert(outputs.end(), grad_w.begin(), grad_w.end());
    torch::autograd::set_history(outputs, node);
  }
  return result;
}

template <class Signature>
c10::TypedOperatorHandle<Signature> find_op(const std::string& name) {
  return c10::Dispatcher::singleton().findSchemaOrThrow(name.c_str(), "").typed<Signature>();
}

}  // namespace

LayerResult call_layer(const LayerCall& c, bool save) {
  static const c10::TypedOperatorHandle<LayerOp> ops[] = {
#define RNNFAST_FIND(name, Cell, variant) find_op<LayerOp>("rnnfast::" #name "_layer"),
      RNNFAST_CELLS(RNNFAST_FIND)
#undef RNNFAST_FIND
  };
  return ops[static_cast<int>(c.kind)].call(c.x, c.h0, c.c0, c.weights, c.batch_sizes, c.has_biases,
                                            c.bidirectional, save, c.options.bptt.limit, c.options.codes());
}

LayerGradients call_layer_backward(const LayerCall& c, const OptionalTensor& grad_y, const OptionalTensor& grad_h_n,
                                   const OptionalTensor& grad_c_n, const at::Tensor& y, const at::Tensor& saved,
                                   const at::Tensor& cells, const c10::List<bool>& output_mask) {
  static const c10::TypedOperatorHandle<LayerBackwardOp> ops[] = {
#define RNNFAST_FIND(name, Cell, variant) find_op<LayerBackwardOp>("rnnfast::" #name "_layer_backward"),
      RNNFAST_CELLS(RNNFAST_FIND)
#undef RNNFAST_FIND
  };
  return ops[static_cast<int>(c.kind)].call(grad_y, grad_h_n, grad_c_n, c.x, c.h0, c.c0, c.weights, c.batch_sizes,
                                            c.has_biases, c.bidirectional, y, saved, cells, output_mask,
                                            c.options.bptt.limit, c.options.codes());
}

TORCH_LIBRARY_IMPL(rnnfast, Autograd, m) {
#define RNNFAST_IMPLEMENT(name, Cell, variant)                                  \
  m.impl(#name "_layer", TORCH_FN((layer_op<CellKind::name, layer_autograd>))); \
  m.impl(#name "_layer_backward", TORCH_FN((layer_backward_op<CellKind::name, layer_backward_autograd>)));
  RNNFAST_CELLS(RNNFAST_IMPLEMENT)
#undef RNNFAST_IMPLEMENT
}

}  // namespace rnnfast
