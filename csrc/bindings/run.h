// SPDX-License-Identifier: Apache-2.0
// From tensors to kernels: pointers of contiguous tensors, plan, workspace, team.
#pragma once

#include <ATen/Functions.h>

#include "bindings/layer_checks.h"
#include "cpu/kernels.h"

namespace rnnfast {

// Of a tensor whose dtype was checked; T may be the device's name for it (half, bfloat16).
template <class T>
const T* pointer(const at::Tensor& t) {
  return t.defined() ? static_cast<const T*>(t.const_data_ptr()) : nullptr;
}

// Null for a tensor that is not there, or not asked for.
template <class T>
T* output(const at::Tensor& t) {
  return t.defined() && t.numel() > 0 ? static_cast<T*>(t.mutable_data_ptr()) : nullptr;
}

inline at::Tensor contiguous_or_undefined(const OptionalTensor& t) {
  return t ? t->resolve_neg().contiguous() : at::Tensor();
}

// The contiguous tensors behind a LayerInputs, which must outlive it.
struct HeldInputs {
  at::Tensor x, h0, c0;
  std::vector<at::Tensor> weights;
  bool has_biases;

  HeldInputs(const at::Tensor& x_in, const OptionalTensor& h0_in, const OptionalTensor& c0_in,
             at::TensorList weights_in, bool biases)
      : x(!x_in.defined() || (x_in.stride(-1) == 1 && !x_in.is_neg()) ? x_in : x_in.resolve_neg().contiguous()),
        h0(contiguous_or_undefined(h0_in)),
        c0(contiguous_or_undefined(c0_in)),
        has_biases(biases) {
    weights.reserve(weights_in.size());
    for (const at::Tensor& w : weights_in) weights.push_back(w.resolve_neg().contiguous());
  }

  template <class T>
  LayerInputs<T> inputs(const CellInfo& cell, const LayerSizes& s) const {
    LayerInputs<T> in;
    in.sequence = s.sequence();
    in.I = s.I;
    in.H = s.H;
    in.P = s.P;
    in.directions = s.directions;
    in.variant = cell.variant;
    in.projection = s.projection;
    in.reversed = s.reversed;
    if (x.defined()) {
      in.x = pointer<T>(x);
      in.x_step = s.packed ? 0 : x.stride(0);
      in.x_row = x.stride(s.packed ? 0 : 1);
    }
    in.h0 = pointer<T>(h0);
    in.c0 = pointer<T>(c0);
    if (weights.empty()) return in;
    for (size_t d = 0; d < static_cast<size_t>(s.directions); ++d) {
      const at::Tensor* w = &weights[d * s.weights_each];
      LayerWeights<T>& to = in.weights[d];
      to.w_ih = pointer<T>(w[0]);
      to.w_hh = pointer<T>(w[1]);
      if (has_biases) {
        to.b_ih = pointer<T>(w[2]);
        to.b_hh = pointer<T>(w[3]);
      }
      if (s.projection) to.w_hr = pointer<T>(w[s.weights_each - 1]);
    }
    return in;
  }
};

// Runs a kernel of the chosen target on the team.
template <class Job>
void run_kernel(const Job& job, void (*kernel)(const Job&, int, int), int threads) {
  struct Call {
    const Job& job;
    void (*kernel)(const Job&, int, int);
  } call{job, kernel};
  run_team(
      threads,
      [](void* self, int index, int count) {
        const Call* c = static_cast<Call*>(self);
        c->kernel(c->job, index, count);
      },
      &call);
}

struct LayerOutputs {
  at::Tensor y, h_n, c_n, saved, cells;
};

// Allocates a layer's outputs; saved and cells only for training.
LayerOutputs empty_outputs(const CellInfo& cell, const LayerSizes& s, const at::TensorOptions& options,
                           bool training);

// The forward pass of a layer. packed: its weights packed before for `target`, or null.
template <class T>
void run_forward(CellKind kind, const Kernels& target, const LayerSizes& s, const HeldInputs& held, const T* packed,
                 const LayerOutputs& out, bool training);

// What the backward pass reads besides the layer's inputs, and what it writes. Contiguous or undefined.
struct BackwardTensors {
  at::Tensor y, saved, cells, grad_y, grad_h_n, grad_c_n;
  at::Tensor grad_x, grad_h0, grad_c0;  // shape [0]: not asked for
  std::vector<at::Tensor> grad_weights;
  Bptt bptt;
  at::Tensor record;  // [D, N, kRecorded], or undefined
};

// The tensors' pointers in a LayerBackward or CudaBackward. T: their dtype; C: that of what the forward pass saved.
template <class T, class C, class Args>
void set_tensors(Args& args, const LayerSizes& s, bool has_biases, const BackwardTensors& t) {
  args.bptt = t.bptt;
  args.record = output<C>(t.record);
  args.y = pointer<T>(t.y);
  args.saved = pointer<C>(t.saved);
  args.cells = pointer<C>(t.cells);
  args.grad_y = pointer<T>(t.grad_y);
  args.grad_h_n = pointer<T>(t.grad_h_n);
  args.grad_c_n = pointer<T>(t.grad_c_n);
  args.grad_x = output<T>(t.grad_x);
  args.grad_h0 = output<T>(t.grad_h0);
  args.grad_c0 = output<T>(t.grad_c0);
  for (size_t d = 0; d < static_cast<size_t>(s.directions); ++d) {
    const at::Tensor* grads = &t.grad_weights[d * s.weights_each];
    args.grad_w_ih[d] = output<T>(grads[0]);
    args.grad_w_hh[d] = output<T>(grads[1]);
    if (has_biases) {
      args.grad_b_ih[d] = output<T>(grads[2]);
      args.grad_b_hh[d] = output<T>(grads[3]);
    }
    if (s.projection) args.grad_w_hr[d] = output<T>(grads[s.weights_each - 1]);
  }
}

template <class T>
void run_backward(CellKind kind, const LayerSizes& s, const HeldInputs& held, const BackwardTensors& t);

extern template void run_backward<float>(CellKind, const LayerSizes&, const HeldInputs&, const BackwardTensors&);
extern template void run_backward<double>(CellKind, const LayerSizes&, const HeldInputs&, const BackwardTensors&);
extern template void run_forward<float>(CellKind, const Kernels&, const LayerSizes&, const HeldInputs&,
                                        const float*, const LayerOutputs&, bool);
extern template void run_forward<double>(CellKind, const Kernels&, const LayerSizes&, const HeldInputs&,
                                         const double*, const LayerOutputs&, bool);

}  // namespace rnnfast
