// SPDX-License-Identifier: Apache-2.0
#include "bindings/frozen.h"

#include <c10/core/GradMode.h>
#include <c10/util/Exception.h>

#include <stdexcept>

#include "bindings/layer_ops.h"
#include "bindings/run.h"

namespace rnnfast {
namespace {

template <class T>
at::Tensor pack(CellKind kind, const Kernels& target, const LayerSizes& s, const HeldInputs& held) {
  const CellInfo& cell = cell_info(kind);
  const PackedSpace space = packed_space(cell, s.shape(cell, int(sizeof(T))), target.vector_bytes / int(sizeof(T)));
  at::Tensor packed = at::empty({s.directions, space.size}, held.weights[0].options());
  const LayerInputs<T> in = held.inputs<T>(cell, s);
  target.of(kind, T{}).pack({&in, &space, packed.mutable_data_ptr<T>()}, 0, 1);
  return packed;
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

FrozenLayer::FrozenLayer(CellKind kind, const std::vector<at::Tensor>& weights, bool has_biases, bool bidirectional)
    : kind_(kind), name_(std::string("rnnfast: frozen ") + cell_info(kind).name), target_(kernels()) {
  c10::NoGradGuard no_grad;
  TORCH_CHECK(!weights.empty() && weights[0].defined(), name_, ": weights: expected tensors, got none");
  dtype_ = weights[0].scalar_type();
  TORCH_CHECK(dtype_ == at::kFloat || dtype_ == at::kDouble || is_reduced(dtype_), name_,
              ": weights: expected dtype float32, float64, float16 or bfloat16, got ", dtype_);
  check_weights(kind, name_, weights, has_biases, bidirectional, dtype_, sizes_);
  std::vector<at::Tensor> held_weights = weights;
  if (is_reduced(dtype_))
    for (at::Tensor& w : held_weights) w = w.to(at::kFloat);
  const HeldInputs held({}, std::nullopt, std::nullopt, held_weights, has_biases);
  packed_ =
      dtype_ == at::kDouble ? pack<double>(kind, target_, sizes_, held) : pack<float>(kind, target_, sizes_, held);
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> FrozenLayer::forward(const at::Tensor& x, const OptionalTensor& h0,
                                                                    const OptionalTensor& c0,
                                                                    const OptionalTensor& batch_sizes) const {
  c10::NoGradGuard no_grad;
  TORCH_CHECK(x.defined() && x.device().is_cpu() && x.layout() == at::kStrided, name_,
              ": x: expected a dense CPU tensor, got ", x.defined() ? x.toString() : "an undefined one");
  TORCH_CHECK(x.scalar_type() == dtype_, name_, ": x: expected dtype ", dtype_, " as the weights, got ",
              x.scalar_type());
  LayerSizes s = sizes_;
  check_sequence(kind_, name_, x, h0, c0, batch_sizes, s);
  const bool reduced = is_reduced(dtype_);
  const auto inner = [&](const OptionalTensor& t) { return t && reduced ? OptionalTensor(t->to(at::kFloat)) : t; };
  const HeldInputs held(reduced ? x.to(at::kFloat) : x, inner(h0), inner(c0), {}, false);
  const LayerOutputs out = empty_outputs(cell_info(kind_), s, packed_.options(), false);
  if (packed_.scalar_type() == at::kDouble) {
    run_forward<double>(kind_, target_, s, held, packed_.const_data_ptr<double>(), out, false);
  } else {
    run_forward<float>(kind_, target_, s, held, packed_.const_data_ptr<float>(), out, false);
  }
  if (!reduced) return {out.y, out.h_n, out.c_n};
  return {out.y.to(dtype_), out.h_n.to(dtype_), out.c_n.to(dtype_)};
}

}  // namespace rnnfast
