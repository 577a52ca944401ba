// SPDX-License-Identifier: Apache-2.0
#include "bindings/lstm_ops.h"

#include <ATen/Functions.h>
#include <c10/util/Exception.h>
#include <torch/library.h>

#include "bindings/machine.h"
#include "bindings/workspace.h"
#include "cpu/kernels.h"

namespace rnnfast {
namespace {

template <class T>
const T* pointer(const at::Tensor& t) {
  return t.defined() ? t.const_data_ptr<T>() : nullptr;
}

at::Tensor contiguous_or_undefined(const OptionalTensor& t) { return t ? t->contiguous() : at::Tensor(); }

LayerShape layer_shape(const LstmSizes& s, const at::Tensor& x) {
  return {s.T, s.B, s.I, s.H, s.directions, int(x.element_size()), s.packed};
}

// The contiguous tensors behind an LstmInputs, which must outlive it.
struct HeldInputs {
  at::Tensor x, h0, c0;
  std::vector<at::Tensor> weights;
  bool has_biases;

  HeldInputs(const at::Tensor& x_in, const OptionalTensor& h0_in, const OptionalTensor& c0_in,
             at::TensorList weights_in, bool biases)
      : x(x_in.stride(-1) == 1 ? x_in : x_in.contiguous()),
        h0(contiguous_or_undefined(h0_in)),
        c0(contiguous_or_undefined(c0_in)),
        has_biases(biases) {
    weights.reserve(weights_in.size());
    for (const at::Tensor& w : weights_in) weights.push_back(w.contiguous());
  }

  template <class T>
  LstmInputs<T> inputs(const LstmSizes& s) const {
    LstmInputs<T> in;
    in.sequence = {s.T, s.B, s.packed ? s.batch_sizes.data() : nullptr, s.packed ? s.offsets.data() : nullptr};
    in.I = s.I;
    in.H = s.H;
    in.directions = s.directions;
    in.x = pointer<T>(x);
    in.x_step = s.packed ? 0 : x.stride(0);
    in.x_row = x.stride(s.packed ? 0 : 1);
    in.h0 = pointer<T>(h0);
    in.c0 = pointer<T>(c0);
    const size_t each = has_biases ? 4 : 2;
    for (size_t d = 0; d < static_cast<size_t>(s.directions); ++d) {
      in.weights[d].w_ih = pointer<T>(weights[d * each]);
      in.weights[d].w_hh = pointer<T>(weights[d * each + 1]);
      if (has_biases) {
        in.weights[d].b_ih = pointer<T>(weights[d * each + 2]);
        in.weights[d].b_hh = pointer<T>(weights[d * each + 3]);
      }
    }
    return in;
  }
};

// Runs a kernel of the chosen target on the team.
template <class Job>
struct TeamCall {
  const Job& job;
  void (*kernel)(const Job&, int, int);
  static void body(void* self, int index, int count) {
    const TeamCall* call = static_cast<TeamCall*>(self);
    call->kernel(call->job, index, count);
  }
};

template <class Job>
void run_kernel(const Job& job, void (*kernel)(const Job&, int, int), int threads) {
  TeamCall<Job> call{job, kernel};
  run_team(threads, &TeamCall<Job>::body, &call);
}

auto forward_kernel(const Kernels& k, float) { return k.lstm_forward_f32; }
auto forward_kernel(const Kernels& k, double) { return k.lstm_forward_f64; }
auto backward_kernel(const Kernels& k, float) { return k.lstm_backward_f32; }
auto backward_kernel(const Kernels& k, double) { return k.lstm_backward_f64; }

template <class T>
void run_forward(const LstmSizes& s, const HeldInputs& held, at::Tensor& y, at::Tensor& h_n, at::Tensor& c_n,
                 at::Tensor& gates, at::Tensor& cells, bool save) {
  const Kernels& target = kernels();
  const LayerShape shape = layer_shape(s, held.x);
  const LayerPlan plan = plan_forward(shape, this_machine());
  const LstmForwardSpace space = forward_space(shape, plan, target.vector_bytes / int(sizeof(T)), save);
  const Workspace workspace(s.directions * space.size * int64_t(sizeof(T)));

  LstmForward<T> args;
  args.in = held.inputs<T>(s);
  args.y = y.mutable_data_ptr<T>();
  args.h_n = h_n.mutable_data_ptr<T>();
  args.c_n = c_n.mutable_data_ptr<T>();
  if (save) {
    args.gates = gates.mutable_data_ptr<T>();
    args.cells = cells.mutable_data_ptr<T>();
  }
  Barrier all, group[2];
  const LstmForwardJob<T> job{&args, &plan, &space, workspace.as<T>(), &all, group};
  run_kernel(job, forward_kernel(target, T{}), plan.threads);
}

struct Gradients {
  at::Tensor x, h0, c0;
  std::vector<at::Tensor> weights;
};

template <class T>
void run_backward(const LstmSizes& s, const HeldInputs& held, const at::Tensor& y, const at::Tensor& gates,
                  const at::Tensor& cells, const at::Tensor& grad_y, const at::Tensor& grad_h_n,
                  const at::Tensor& grad_c_n, Gradients& grads) {
  const Kernels& target = kernels();
  const LayerShape shape = layer_shape(s, held.x);
  const LayerPlan plan = plan_backward(shape, this_machine());
  const LstmBackwardSpace space = backward_space(shape, plan, target.vector_bytes / int(sizeof(T)), s.rows);
  const Workspace workspace(space.size * int64_t(sizeof(T)));

  LstmBackward<T> args;
  args.in = held.inputs<T>(s);
  args.y = pointer<T>(y);
  args.gates = pointer<T>(gates);
  args.cells = pointer<T>(cells);
  args.grad_y = pointer<T>(grad_y);
  args.grad_h_n = pointer<T>(grad_h_n);
  args.grad_c_n = pointer<T>(grad_c_n);
  const auto output = [](const at::Tensor& t) -> T* {
    return t.defined() && t.numel() > 0 ? t.mutable_data_ptr<T>() : nullptr;
  };
  args.grad_x = output(grads.x);
  args.grad_h0 = output(grads.h0);
  args.grad_c0 = output(grads.c0);
  const size_t each = held.has_biases ? 4 : 2;
  for (size_t d = 0; d < static_cast<size_t>(s.directions); ++d) {
    args.grad_w_ih[d] = output(grads.weights[d * each]);
    args.grad_w_hh[d] = output(grads.weights[d * each + 1]);
    if (held.has_biases) {
      args.grad_b[d] = output(grads.weights[d * each + 2]);
      if (args.grad_b[d] == nullptr) args.grad_b[d] = output(grads.weights[d * each + 3]);
    }
  }
  Barrier all, group[2];
  const LstmBackwardJob<T> job{&args, &plan, &space, workspace.as<T>(), &all, group};
  run_kernel(job, backward_kernel(target, T{}), plan.threads);
  if (!held.has_biases) return;
  for (size_t d = 0; d < static_cast<size_t>(s.directions); ++d) {
    at::Tensor& b_ih = grads.weights[d * each + 2];
    at::Tensor& b_hh = grads.weights[d * each + 3];
    if (b_ih.numel() > 0 && b_hh.numel() > 0) b_hh.copy_(b_ih);
  }
}

}  // namespace

LstmLayerResult lstm_layer_cpu(const at::Tensor& x, const OptionalTensor& h0, const OptionalTensor& c0,
                               at::TensorList weights, const OptionalTensor& batch_sizes, bool has_biases,
                               bool bidirectional, bool save) {
  const LstmSizes s = check_lstm_inputs(x, h0, c0, weights, batch_sizes, has_biases, bidirectional);
  const int64_t D = s.directions;
  const auto options = x.options();
  at::Tensor y = s.packed ? at::empty({s.rows, D * s.H}, options) : at::empty({s.T, s.B, D * s.H}, options);
  at::Tensor h_n = at::empty({D, s.B, s.H}, options);
  at::Tensor c_n = at::empty({D, s.B, s.H}, options);
  at::Tensor gates = save ? at::empty({D, s.rows, 4 * s.H}, options) : at::empty({0}, options);
  at::Tensor cells = save ? at::empty({D, s.rows, s.H}, options) : at::empty({0}, options);
  if (s.rows > 0) {
    for (const at::Tensor& t : {y, gates, cells}) prefer_huge_pages(t.mutable_data_ptr(), int64_t(t.nbytes()));
    const HeldInputs held(x, h0, c0, weights, has_biases);
    if (x.scalar_type() == at::kFloat) {
      run_forward<float>(s, held, y, h_n, c_n, gates, cells, save);
    } else {
      run_forward<double>(s, held, y, h_n, c_n, gates, cells, save);
    }
  }
  return {y, h_n, c_n, gates, cells};
}

LstmLayerGradients lstm_layer_backward_cpu(const OptionalTensor& grad_y, const OptionalTensor& grad_h_n,
                                           const OptionalTensor& grad_c_n, const at::Tensor& x,
                                           const OptionalTensor& h0, const OptionalTensor& c0,
                                           at::TensorList weights, const OptionalTensor& batch_sizes,
                                           bool has_biases, bool bidirectional, const at::Tensor& y,
                                           const at::Tensor& gates, const at::Tensor& cells,
                                           c10::List<bool> output_mask) {
  constexpr const char* kOp = "rnnfast::lstm_layer_backward";
  const LstmSizes s = check_lstm_inputs(x, h0, c0, weights, batch_sizes, has_biases, bidirectional);
  const int64_t D = s.directions;
  const std::vector<int64_t> y_shape =
      s.packed ? std::vector<int64_t>{s.rows, D * s.H} : std::vector<int64_t>{s.T, s.B, D * s.H};
  check_like_x(kOp, "y", y, x, y_shape);
  check_like_x(kOp, "gates", gates, x, {D, s.rows, 4 * s.H});
  check_like_x(kOp, "cells", cells, x, {D, s.rows, s.H});
  if (grad_y) check_like_x(kOp, "grad_y", *grad_y, x, y_shape);
  if (grad_h_n) check_like_x(kOp, "grad_h_n", *grad_h_n, x, {D, s.B, s.H});
  if (grad_c_n) check_like_x(kOp, "grad_c_n", *grad_c_n, x, {D, s.B, s.H});
  TORCH_CHECK(output_mask.size() == 3 + weights.size(), kOp, ": output_mask: expected ", 3 + weights.size(),
              " entries (x, h0, c0 and each weight), got ", output_mask.size());

  const auto options = x.options();
  const auto wanted = [&](size_t i, at::IntArrayRef shape) {
    if (!output_mask.get(i)) return at::empty({0}, options);
    return s.rows > 0 ? at::empty(shape, options) : at::zeros(shape, options);
  };
  const std::vector<int64_t> state_shape{D, s.B, s.H};
  Gradients grads{wanted(0, x.sizes()), wanted(1, state_shape), wanted(2, state_shape), {}};
  for (size_t i = 0; i < weights.size(); ++i) grads.weights.push_back(wanted(3 + i, weights[i].sizes()));
  if (s.rows > 0) {
    const HeldInputs held(x, h0, c0, weights, has_biases);
    const at::Tensor y_c = y.contiguous(), gates_c = gates.contiguous(), cells_c = cells.contiguous();
    const at::Tensor gy = contiguous_or_undefined(grad_y), gh = contiguous_or_undefined(grad_h_n),
                     gc = contiguous_or_undefined(grad_c_n);
    if (x.scalar_type() == at::kFloat) {
      run_backward<float>(s, held, y_c, gates_c, cells_c, gy, gh, gc, grads);
    } else {
      run_backward<double>(s, held, y_c, gates_c, cells_c, gy, gh, gc, grads);
    }
  }
  return {grads.x, grads.h0, grads.c0, std::move(grads.weights)};
}

TORCH_LIBRARY(rnnfast, m) {
  m.def(
      "lstm_layer(Tensor x, Tensor? h0, Tensor? c0, Tensor[] weights, Tensor? batch_sizes, bool has_biases, "
      "bool bidirectional, bool save) -> (Tensor y, Tensor h_n, Tensor c_n, Tensor gates, Tensor cells)");
  m.def(
      "lstm_layer_backward(Tensor? grad_y, Tensor? grad_h_n, Tensor? grad_c_n, Tensor x, Tensor? h0, Tensor? c0, "
      "Tensor[] weights, Tensor? batch_sizes, bool has_biases, bool bidirectional, Tensor y, Tensor gates, "
      "Tensor cells, bool[] output_mask) -> (Tensor grad_x, Tensor grad_h0, Tensor grad_c0, Tensor[] "
      "grad_weights)");
}

TORCH_LIBRARY_IMPL(rnnfast, CPU, m) {
  m.impl("lstm_layer", TORCH_FN(lstm_layer_cpu));
  m.impl("lstm_layer_backward", TORCH_FN(lstm_layer_backward_cpu));
}

}  // namespace rnnfast
