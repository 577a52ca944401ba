// SPDX-License-Identifier: Apache-2.0
#include "bindings/layer_tensor.h"

#include <ATen/Functions.h>

#include "bindings/tensor_value.h"

#define RNNFAST_NAMESPACE rnnfast_tensor
#include "cells/all.h"

namespace rnnfast {
namespace {

using rnnfast_tensor::TensorValue;

// One direction of a layer.
template <class Cell>
class TensorScan {
  static constexpr int G = Cell::kGates;

 public:
  TensorScan(const LayerCall& call, int direction, int variant, bool save)
      : cell_(variant), d_(direction), packed_(call.batch_sizes.has_value()), save_(save) {
    const size_t each = call.weights.size() / (call.bidirectional ? 2 : 1), plain = call.has_biases ? 4 : 2;
    const at::Tensor* w = &call.weights[static_cast<size_t>(direction) * each];
    w_hh_ = w[1];
    if (call.has_biases) b_hh_ = w[3];
    if (each > plain) w_hr_ = w[each - 1];
    gates_x_ = at::linear(call.x, w[0], call.has_biases ? OptionalTensor(w[2]) : std::nullopt);
    if (packed_) {
      sizes_ = read_batch_sizes(*call.batch_sizes);
    } else {
      sizes_.assign(static_cast<size_t>(call.x.size(0)), call.x.size(1));
    }
    const int64_t H = w_hh_.size(0) / G, P = w_hh_.size(1);
    h_ = call.h0 ? call.h0->select(0, direction) : at::zeros({sizes_[0], P}, call.x.options());
    if (Cell::kHasCell) c_ = call.c0 ? call.c0->select(0, direction) : at::zeros({sizes_[0], H}, call.x.options());
  }

  TensorLayer run() {
    const size_t T = sizes_.size();
    std::vector<int64_t> first_row(T);
    for (size_t t = 1; t < T; ++t) first_row[t] = first_row[t - 1] + sizes_[t - 1];
    std::vector<at::Tensor> outputs(T), saved(T), cells(T);
    for (size_t p = 0; p < T; ++p) {
      const size_t t = d_ == 1 ? T - 1 - p : p;
      outputs[t] =
          step(packed_ ? gates_x_.narrow(0, first_row[t], sizes_[t]) : gates_x_.select(0, int64_t(t)), sizes_[t]);
      saved[t] = saved_step_;
      cells[t] = c_step_;
    }
    TensorLayer result{packed_ ? at::cat(outputs, 0) : at::stack(outputs, 0), h_, c_, {}, {}};
    if (save_ && Cell::kSaved > 0) result.saved = at::cat(saved, 0);
    if (save_ && Cell::kHasCell) result.cells = at::cat(cells, 0);
    return result;
  }

 private:
  // The first n samples move on; returns their h.
  at::Tensor step(const at::Tensor& gates_x, int64_t n) {
    const int64_t B = h_.size(0);
    const at::Tensor h_prev = n < B ? h_.narrow(0, 0, n) : h_;
    const at::Tensor c_prev = !Cell::kHasCell ? at::Tensor() : n < B ? c_.narrow(0, 0, n) : c_;
    const at::Tensor recurrent = at::linear(h_prev, w_hh_, b_hh_.defined() ? OptionalTensor(b_hh_) : std::nullopt);
    const std::vector<at::Tensor> x_parts = gates_x.chunk(G, -1), h_parts = recurrent.chunk(G, -1);
    TensorValue a[G], x[G];
    for (int g = 0; g < G; ++g) {
      x[g] = x_parts[size_t(g)];
      a[g] = Cell::kApart[g] ? TensorValue(h_parts[size_t(g)]) : x[g] + TensorValue(h_parts[size_t(g)]);
    }
    const auto out = cell_.forward(a, x, TensorValue(h_prev), TensorValue(c_prev));
    const at::Tensor h = w_hr_.defined() ? at::linear(out.h.tensor(), w_hr_) : out.h.tensor();
    const auto joined = [&](const at::Tensor& now, const at::Tensor& before) {
      return n < B ? at::cat({now, before.narrow(0, n, B - n)}, 0) : now;
    };
    h_ = joined(h, h_);
    if (Cell::kHasCell) c_ = joined(c_step_ = out.c.tensor(), c_);
    if (save_ && Cell::kSaved > 0) {
      std::vector<at::Tensor> values;
      for (int s = 0; s < Cell::kSaved; ++s) values.push_back(out.saved[s].tensor());
      saved_step_ = at::cat(values, -1);
    }
    return h;
  }

  Cell cell_;
  int d_;
  bool packed_, save_;
  std::vector<int64_t> sizes_;
  at::Tensor w_hh_, b_hh_, w_hr_, gates_x_, h_, c_;
  at::Tensor saved_step_, c_step_;  // of the last step
};

template <class Cell>
TensorLayer run_layer(const LayerCall& call, int variant, bool save) {
  std::vector<at::Tensor> y, h_n, c_n, saved, cells;
  for (int d = 0; d < (call.bidirectional ? 2 : 1); ++d) {
    TensorLayer scan = TensorScan<Cell>(call, d, variant, save).run();
    y.push_back(scan.y);
    h_n.push_back(scan.h_n);
    c_n.push_back(scan.c_n);
    saved.push_back(scan.saved);
    cells.push_back(scan.cells);
  }
  const auto stacked = [&](const std::vector<at::Tensor>& parts) {
    return parts[0].defined() ? at::stack(parts, 0) : at::empty({0}, call.x.options());
  };
  return {y.size() == 1 ? y[0] : at::cat(y, -1), stacked(h_n), stacked(c_n), stacked(saved), stacked(cells)};
}

}  // namespace

TensorLayer layer_of_tensors(const LayerCall& call, bool save) {
  switch (call.kind) {
#define RNNFAST_CASE(name, Cell, variant) \
  case CellKind::name:                    \
    return run_layer<rnnfast_tensor::Cell>(call, variant, save);
    RNNFAST_CELLS(RNNFAST_CASE)
#undef RNNFAST_CASE
  }
  return {};
}

}  // namespace rnnfast
