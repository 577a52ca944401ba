// SPDX-License-Identifier: Apache-2.0
#include "bindings/frozen.h"

#include <c10/core/GradMode.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <stdexcept>

#include "bindings/layer_ops.h"
#include "bindings/machine.h"
#include "bindings/run.h"
#include "bindings/workspace.h"

namespace rnnfast {
namespace {

// Rows of a half-precision sequence that are converted at a time.
constexpr int64_t kConvertedRows = 4096;

template <class T>
at::Tensor pack(CellKind kind, const Kernels& target, const LayerSizes& s, const HeldInputs& held) {
  const CellInfo& cell = cell_info(kind);
  const PackedSpace space = packed_space(cell, s.shape(cell, int(sizeof(T))), target.vector_bytes / int(sizeof(T)));
  at::Tensor packed = at::empty({s.directions, space.size}, held.weights[0].options());
  prefer_huge_pages(packed.mutable_data_ptr(), int64_t(packed.nbytes()));
  const LayerInputs<T> in = held.inputs<T>(cell, s);
  target.of(kind, T{}).pack({&in, &space, packed.mutable_data_ptr<T>()}, 0, 1);
  return packed;
}

template <class T>
void run_tensors(const FrozenStack& stack, const LayerSizes& s, const HeldInputs& held, const LayerOutputs& out) {
  const std::vector<StackLayer<T>> layers = stack.layers<T>();
  StackCall<T> call;
  call.kind = stack.kind();
  call.in = held.inputs<T>(cell_info(stack.kind()), s);
  call.layers = layers.data();
  call.count = stack.count();
  call.y = out.y.mutable_data_ptr<T>();
  call.h_n = out.h_n.mutable_data_ptr<T>();
  if (cell_info(stack.kind()).has_cell) call.c_n = out.c_n.mutable_data_ptr<T>();
  call_stack(stack.target(), call);
}

}  // namespace

CellKind cell_named(const std::string& name) {
  std::string names;
  for (int i = 0; i < kCellCount; ++i) {
    const char* known = cell_info(CellKind(i)).name;
    if (name == known) return CellKind(i);
    names += (i ? ", " : "") + std::string(known);
  }
  throw std::invalid_argument("rnnfast: cell: expected one of " + names + ", got '" + name + "'");
}

template <class T>
LayerShape shape_of(const StackCall<T>& call) {
  const LayerInputs<T>& in = call.in;
  LayerShape s;
  s.T = in.sequence.T, s.B = in.sequence.B, s.I = in.I, s.H = in.H, s.P = in.P;
  s.gates = cell_info(call.kind).gates;
  s.directions = in.directions;
  s.element_bytes = int(sizeof(T));
  s.packed_sequence = in.sequence.offsets != nullptr;
  s.projection = in.projection;
  s.prepacked = call.layers[0].packed != nullptr;
  return s;
}

template <class T>
void call_stack(const Kernels& target, const StackCall<T>& call) {
  const LayerShape shape = shape_of(call);
  const StackPlan plan = plan_stack(shape, call.count, this_machine());
  const StackSpace space =
      stack_space(cell_info(call.kind), shape, call.count, plan, target.vector_bytes / int(sizeof(T)));
  const Workspace workspace(space.size * int64_t(sizeof(T)));
  run_stack(target, call, plan, space, workspace.as<T>());
}

FrozenStack::FrozenStack(CellKind kind, const std::vector<std::vector<at::Tensor>>& layers, bool has_biases,
                         bool bidirectional)
    : kind_(kind), name_(std::string("rnnfast: frozen ") + cell_info(kind).name), target_(kernels()) {
  c10::NoGradGuard no_grad;
  TORCH_CHECK(!layers.empty() && !layers[0].empty() && layers[0][0].defined(), name_,
              ": weights: expected tensors, got none");
  dtype_ = layers[0][0].scalar_type();
  TORCH_CHECK(dtype_ == at::kFloat || dtype_ == at::kDouble || is_reduced(dtype_), name_,
              ": weights: expected dtype float32, float64, float16 or bfloat16, got ", dtype_);
  inner_dtype_ = computed(dtype_);
  for (const std::vector<at::Tensor>& weights : layers) {
    LayerSizes s;
    check_weights(kind, name_, weights, has_biases, bidirectional, dtype_, at::kCPU, s);
    if (packed_.empty()) {
      sizes_ = s;
    } else {
      TORCH_CHECK(s.I == s.directions * sizes_.P && s.H == sizes_.H && s.P == sizes_.P, name_,
                  ": weights: expected layers of one size, each fed by the one below, got layer ", packed_.size(),
                  " with I=", s.I, ", H=", s.H, ", P=", s.P, " above H=", sizes_.H, ", P=", sizes_.P);
    }
    std::vector<at::Tensor> inner = weights;
    if (is_reduced(dtype_))
      for (at::Tensor& w : inner) w = w.to(at::kFloat);
    const HeldInputs held({}, std::nullopt, std::nullopt, inner, has_biases);
    packed_.push_back(dtype_ == at::kDouble ? pack<double>(kind, target_, s, held)
                                            : pack<float>(kind, target_, s, held));
  }
}

int64_t FrozenStack::bytes() const {
  int64_t sum = 0;
  for (const at::Tensor& p : packed_) sum += int64_t(p.nbytes());
  return sum;
}

template <class T>
std::vector<StackLayer<T>> FrozenStack::layers() const {
  std::vector<StackLayer<T>> result(packed_.size());
  for (size_t l = 0; l < packed_.size(); ++l) result[l].packed = packed_[l].const_data_ptr<T>();
  return result;
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> FrozenStack::forward(const at::Tensor& x, const OptionalTensor& h0,
                                                                    const OptionalTensor& c0,
                                                                    const OptionalTensor& batch_sizes) const {
  c10::NoGradGuard no_grad;
  TORCH_CHECK(x.defined() && x.device().is_cpu() && x.layout() == at::kStrided, name_,
              ": x: expected a dense CPU tensor, got ", x.defined() ? x.toString() : "an undefined one");
  TORCH_CHECK(x.scalar_type() == dtype_, name_, ": x: expected dtype ", dtype_, " as the weights, got ",
              x.scalar_type());
  LayerSizes s = sizes_;
  const bool has_cell = cell_info(kind_).has_cell;
  check_sequence(kind_, name_, x, std::nullopt, std::nullopt, batch_sizes, s);
  const int64_t states = s.directions * count();
  if (h0) check_tensor(name_, "h0", *h0, dtype_, {states, s.B, s.P});
  TORCH_CHECK(!c0 || has_cell, name_, ": c0: expected None, as this cell has no cell state, got a tensor");
  if (c0) check_tensor(name_, "c0", *c0, dtype_, {states, s.B, s.H});
  return is_reduced(dtype_) ? forward_reduced(x, h0, c0, s) : run(x, h0, c0, s);
}

// Computed in float32. Where it can, it converts a part of the sequence at a time: the copies do not grow with T.
std::tuple<at::Tensor, at::Tensor, at::Tensor> FrozenStack::forward_reduced(const at::Tensor& x,
                                                                            const OptionalTensor& h0,
                                                                            const OptionalTensor& c0,
                                                                            const LayerSizes& s) const {
  const auto inner = [](const OptionalTensor& t) { return t ? OptionalTensor(t->to(at::kFloat)) : std::nullopt; };
  const int64_t part = std::max<int64_t>(1, kConvertedRows / std::max<int64_t>(1, s.B));
  if (s.packed || s.directions == 2 || s.T <= part) {
    const auto [y, h_n, c_n] = run(x.to(at::kFloat), inner(h0), inner(c0), s);
    return {y.to(dtype_), h_n.to(dtype_), c_n.to(dtype_)};
  }
  const at::Tensor y = at::empty(s.y_shape(), x.options());
  OptionalTensor h = inner(h0), c = inner(c0);
  for (int64_t t = 0; t < s.T; t += part) {
    LayerSizes own = s;
    own.T = std::min(part, s.T - t);
    own.rows = own.T * s.B;
    const auto [y_part, h_n, c_n] = run(x.narrow(0, t, own.T).to(at::kFloat), h, c, own);
    y.narrow(0, t, own.T).copy_(y_part);
    h = h_n;
    if (cell_info(kind_).has_cell) c = c_n;
  }
  return {y, h->to(dtype_), c ? c->to(dtype_) : at::empty({0}, x.options())};
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> FrozenStack::run(const at::Tensor& x, const OptionalTensor& h0,
                                                                const OptionalTensor& c0,
                                                                const LayerSizes& s) const {
  const HeldInputs held(x, h0, c0, {}, false);
  const int64_t states = s.directions * count();
  const at::TensorOptions options = packed_[0].options();
  LayerOutputs out;
  out.y = at::empty(s.y_shape(), options);
  out.h_n = at::empty({states, s.B, s.P}, options);
  out.c_n = cell_info(kind_).has_cell ? at::empty({states, s.B, s.H}, options) : at::empty({0}, options);
  if (s.rows == 0) return {out.y, out.h_n, out.c_n};
  prefer_huge_pages(out.y.mutable_data_ptr(), int64_t(out.y.nbytes()));
  if (inner_dtype_ == at::kDouble) {
    run_tensors<double>(*this, s, held, out);
  } else {
    run_tensors<float>(*this, s, held, out);
  }
  return {out.y, out.h_n, out.c_n};
}

template void call_stack<float>(const Kernels&, const StackCall<float>&);
template void call_stack<double>(const Kernels&, const StackCall<double>&);
template LayerShape shape_of<float>(const StackCall<float>&);
template LayerShape shape_of<double>(const StackCall<double>&);
template std::vector<StackLayer<float>> FrozenStack::layers<float>() const;
template std::vector<StackLayer<double>> FrozenStack::layers<double>() const;

}  // namespace rnnfast
