// SPDX-License-Identifier: Apache-2.0
// vmap over the layer ops (torch's own fallback refuses ops with lists of tensors): one call for each slice; and
// where only the sequence and its states are batched, in inference, one call for all, as a larger batch. Both of
// torch's mechanisms: that of torch.func, and the older one behind is_grads_batched; a Mechanism tells how a tensor
// is batched (`of`), batches one (`wrap`), and under which dispatch key it runs.
#pragma once

#include <ATen/Functions.h>
#include <c10/core/impl/LocalDispatchKeySet.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <string>

#include "bindings/layer_ops.h"

namespace rnnfast {

// How a tensor is batched at its innermost level.
struct Batching {
  int64_t level;
  int64_t dim;  // of value
  at::Tensor value;
};

// The level of vmap at work: the innermost among the tensors'. (functorch's own header of levels cannot be
// included: it needs a library that torch does not ship.)
template <class Mechanism>
int64_t level_of(const LayerCall& call, at::TensorList others) {
  int64_t level = -1;
  const auto see = [&](const at::Tensor& t) {
    if (!t.defined()) return;
    if (const auto batching = Mechanism::of(t)) level = std::max(level, batching->level);
  };
  see(call.x), see(tensor_or_undefined(call.h0)), see(tensor_or_undefined(call.c0));
  for (const at::Tensor& w : call.weights) see(w);
  for (const at::Tensor& t : others) see(t);
  return level;
}

// The tensors of a call, unwrapped at the level of vmap, each with its batch dimension in front.
template <class Mechanism>
class Slices {
 public:
  explicit Slices(int64_t level) : level_(level) {}

  at::Tensor add(const at::Tensor& t) {
    const auto batching = Mechanism::of(t);
    if (!batching || batching->level != level_) return remember(t, false);
    size_ = batching->value.size(batching->dim);
    TORCH_CHECK(size_ > 0, "rnnfast: vmap: expected at least one slice, got none");
    return remember(batching->value.movedim(batching->dim, 0), true);
  }
  OptionalTensor add(const OptionalTensor& t) { return t ? OptionalTensor(add(*t)) : std::nullopt; }

  int64_t size() const { return size_; }
  bool batched(const at::Tensor& t) const {
    for (const auto& [tensor, yes] : known_)
      if (tensor.unsafeGetTensorImpl() == t.unsafeGetTensorImpl()) return yes;
    return false;
  }
  at::Tensor slice(const at::Tensor& t, int64_t i) const { return batched(t) ? t.select(0, i) : t; }
  OptionalTensor slice(const OptionalTensor& t, int64_t i) const {
    return t ? OptionalTensor(slice(*t, i)) : std::nullopt;
  }
  LayerCall slice(const LayerCall& c, int64_t i) const {
    LayerCall s{c.kind,        slice(c.x, i), slice(c.h0, i),  slice(c.c0, i), {},
                c.batch_sizes, c.has_biases,  c.bidirectional, c.options};
    for (const at::Tensor& w : c.weights) s.weights.push_back(slice(w, i));
    return s;
  }
  at::Tensor wrap(const at::Tensor& t) const { return Mechanism::wrap(t, level_); }

 private:
  at::Tensor remember(at::Tensor t, bool batched) {
    known_.emplace_back(t, batched);
    return t;
  }

  int64_t level_, size_ = 0;
  std::vector<std::pair<at::Tensor, bool>> known_;
};

template <class Mechanism>
LayerCall unwrapped(const LayerCall& c, Slices<Mechanism>& slices) {
  LayerCall u{c.kind,        slices.add(c.x), slices.add(c.h0), slices.add(c.c0), {},
              c.batch_sizes, c.has_biases,    c.bidirectional,  c.options};
  for (const at::Tensor& w : c.weights) u.weights.push_back(slices.add(w));
  return u;
}

// [V, T, B, F] as [T, V*B, F]; a tensor that is not batched is repeated.
template <class Mechanism>
at::Tensor folded(const Slices<Mechanism>& s, const at::Tensor& t) {
  const at::Tensor v = s.batched(t) ? t : t.unsqueeze(0).expand({s.size(), -1, -1, -1});
  return v.movedim(0, 1).flatten(1, 2);
}
// and back: [T, V*B, F] as [V, T, B, F]
template <class Mechanism>
at::Tensor unfolded(const Slices<Mechanism>& s, const at::Tensor& t) {
  return t.unflatten(1, at::IntArrayRef({s.size(), -1})).movedim(1, 0);
}

template <class Mechanism>
void check_batch_sizes_plain(const LayerCall& call) {
  TORCH_CHECK(!call.batch_sizes || !Mechanism::of(*call.batch_sizes), op_name(call.kind),
              ": batch_sizes: expected one tensor for all slices of vmap, got a batched one");
}

// What `run`() gives, a slice's result. Where nan_policy="raise" names a sample, it says of which slice.
template <class F>
auto in_slice(const LayerCall& call, int64_t i, F run) {
  try {
    return run();
  } catch (c10::Error& e) {
    if (call.options.check) e.add_context("in slice " + std::to_string(i) + " of vmap");
    throw;
  }
}

template <class Mechanism>
LayerResult layer_batched(const LayerCall& call, bool save) {
  check_batch_sizes_plain<Mechanism>(call);
  c10::impl::ExcludeDispatchKeyGuard guard(Mechanism::kKey);
  Slices<Mechanism> slices(level_of<Mechanism>(call, {}));
  const LayerCall u = unwrapped(call, slices);
  bool weights_batched = false;
  for (const at::Tensor& w : u.weights) weights_batched = weights_batched || slices.batched(w);
  const bool has_cell = cell_info(u.kind).has_cell;
  if (!weights_batched && !save && !u.batch_sizes) {
    const auto fold = [&](const OptionalTensor& t) {
      return t ? OptionalTensor(folded(slices, *t)) : std::nullopt;
    };
    LayerCall one{u.kind,        folded(slices, u.x), fold(u.h0),      fold(u.c0), u.weights,
                  u.batch_sizes, u.has_biases,        u.bidirectional, u.options};
    // So that messages name slice and sample; nested, those of the innermost level, counted over all levels.
    if (one.options.check && one.options.slice == 0) one.options.slice = u.x.size(-2);
    auto [y, h_n, c_n, saved, cells] = call_layer(one, false);
    return {slices.wrap(unfolded(slices, y)), slices.wrap(unfolded(slices, h_n)),
            has_cell ? slices.wrap(unfolded(slices, c_n)) : c_n, saved, cells};
  }
  std::vector<at::Tensor> parts[5];
  for (int64_t i = 0; i < slices.size(); ++i) {
    auto [y, h_n, c_n, saved, cells] = in_slice(u, i, [&] { return call_layer(slices.slice(u, i), save); });
    const at::Tensor all[] = {y, h_n, c_n, saved, cells};
    for (int k = 0; k < 5; ++k) parts[k].push_back(all[k]);
  }
  const auto joined = [&](int k) { return slices.wrap(at::stack(parts[k], 0)); };
  return {joined(0), joined(1), joined(2), joined(3), joined(4)};
}

template <class Mechanism>
LayerGradients layer_backward_batched(const LayerCall& call, const OptionalTensor& grad_y,
                                      const OptionalTensor& grad_h_n, const OptionalTensor& grad_c_n,
                                      const at::Tensor& y, const at::Tensor& saved, const at::Tensor& cells,
                                      const c10::List<bool>& output_mask) {
  check_batch_sizes_plain<Mechanism>(call);
  TORCH_CHECK_NOT_IMPLEMENTED(
      call.options.recorder == 0, op_name(call.kind, true),
      ": rnnfast.diagnostics.gradient_flow: expected no vmap around a recorded backward pass");
  c10::impl::ExcludeDispatchKeyGuard guard(Mechanism::kKey);
  Slices<Mechanism> slices(level_of<Mechanism>(call, {tensor_or_undefined(grad_y), tensor_or_undefined(grad_h_n),
                                                      tensor_or_undefined(grad_c_n), y, saved, cells}));
  const LayerCall u = unwrapped(call, slices);
  const OptionalTensor gy = slices.add(grad_y), gh = slices.add(grad_h_n), gc = slices.add(grad_c_n);
  const at::Tensor y_u = slices.add(y), saved_u = slices.add(saved), cells_u = slices.add(cells);
  std::vector<at::Tensor> states[3];
  std::vector<std::vector<at::Tensor>> weights(u.weights.size());
  for (int64_t i = 0; i < slices.size(); ++i) {
    auto [x, h0, c0, w] = in_slice(u, i, [&] {
      return call_layer_backward(slices.slice(u, i), slices.slice(gy, i), slices.slice(gh, i), slices.slice(gc, i),
                                 slices.slice(y_u, i), slices.slice(saved_u, i), slices.slice(cells_u, i),
                                 output_mask);
    });
    states[0].push_back(x);
    states[1].push_back(h0);
    states[2].push_back(c0);
    for (size_t k = 0; k < w.size(); ++k) weights[k].push_back(w[k]);
  }
  const auto joined = [&](const std::vector<at::Tensor>& all) { return slices.wrap(at::stack(all, 0)); };
  std::vector<at::Tensor> grad_weights;
  for (const auto& all : weights) grad_weights.push_back(joined(all));
  return {joined(states[0]), joined(states[1]), joined(states[2]), std::move(grad_weights)};
}

template <CellKind kKind, class Mechanism>
LayerResult layer_op_batched(const at::Tensor& x, const OptionalTensor& h0, const OptionalTensor& c0,
                             at::TensorList weights, const OptionalTensor& batch_sizes, bool has_biases,
                             bool bidirectional, bool save, double limit, at::IntArrayRef bptt) {
  return layer_batched<Mechanism>({kKind, x, h0, c0, weights.vec(), batch_sizes, has_biases, bidirectional,
                                   LayerOptions::read(kKind, limit, bptt, x.scalar_type())},
                                  save);
}

template <CellKind kKind, class Mechanism>
LayerGradients layer_backward_op_batched(const OptionalTensor& grad_y, const OptionalTensor& grad_h_n,
                                         const OptionalTensor& grad_c_n, const at::Tensor& x,
                                         const OptionalTensor& h0, const OptionalTensor& c0, at::TensorList weights,
                                         const OptionalTensor& batch_sizes, bool has_biases, bool bidirectional,
                                         const at::Tensor& y, const at::Tensor& saved, const at::Tensor& cells,
                                         c10::List<bool> output_mask, double limit, at::IntArrayRef bptt) {
  return layer_backward_batched<Mechanism>({kKind, x, h0, c0, weights.vec(), batch_sizes, has_biases, bidirectional,
                                            LayerOptions::read(kKind, limit, bptt, x.scalar_type())},
                                           grad_y, grad_h_n, grad_c_n, y, saved, cells, output_mask);
}

// Registers the ops of every cell with a library for the mechanism's dispatch key.
#define RNNFAST_IMPLEMENT_BATCHED(name, Cell, variant)                                     \
  m.impl(#name "_layer", TORCH_FN((layer_op_batched<CellKind::name, RNNFAST_MECHANISM>))); \
  m.impl(#name "_layer_backward", TORCH_FN((layer_backward_op_batched<CellKind::name, RNNFAST_MECHANISM>)));

}  // namespace rnnfast
