// SPDX-License-Identifier: Apache-2.0
#include "bindings/checkpoint.h"

#include <algorithm>

#include "bindings/finite.h"
#include "bindings/recorder.h"

namespace rnnfast {
namespace {

// One direction of time steps [begin, end).
struct Segment {
  int direction = 0;
  int64_t begin = 0, end = 0;  // in time
  int64_t row = 0;             // the first of its rows
  LayerSizes sizes;            // as a layer of one direction
};

// The segments of one direction in processing order.
std::vector<Segment> segments_of(const LayerSizes& s, int direction, int64_t every) {
  const Sequence seq = s.sequence();
  std::vector<Segment> all;
  for (int64_t first = 0; first < s.T; first += every) {
    const int64_t last = std::min(first + every, s.T);
    Segment g;
    g.direction = direction;
    g.begin = direction == 1 ? s.T - last : first;
    g.end = direction == 1 ? s.T - first : last;
    g.row = seq.first_row(g.begin);
    g.sizes = s;
    g.sizes.T = last - first;
    g.sizes.rows = seq.first_row(g.end) - g.row;
    g.sizes.directions = 1;
    g.sizes.reversed = direction == 1;
    if (s.packed) {
      g.sizes.batch_sizes.assign(s.batch_sizes.begin() + g.begin, s.batch_sizes.begin() + g.end);
      g.sizes.B = g.sizes.batch_sizes[0];
      g.sizes.offsets.clear();
      for (int64_t t = g.begin; t <= g.end; ++t) g.sizes.offsets.push_back(seq.first_row(t) - g.row);
      // Counted from here to a sample's end, wherever that is: where its signal is cut depends on it.
      g.sizes.lengths.resize(size_t(g.sizes.B));
      for (int64_t& length : g.sizes.lengths) length -= g.begin;
    }
    all.push_back(std::move(g));
  }
  return all;
}

class Segments {
 public:
  Segments(const LayerCall& call, const LayerSizes& sizes, const LayerPasses& passes)
      : call_(call),
        s_(sizes),
        passes_(passes),
        cell_(cell_info(call.kind)),
        options_(call.x.options()),
        kept_(options_.dtype(computed(call.x.scalar_type()))) {}

  LayerResult forward() {
    LayerOutputs out = empty_outputs(cell_, s_, options_, false);
    const int64_t D = s_.directions, kept = call_.options.kept_states(s_.T);
    out.saved = at::empty({D, kept, s_.B, s_.P}, kept_);
    if (cell_.has_cell) out.cells = at::empty({D, kept, s_.B, s_.H}, kept_);
    const at::Tensor y = out.y.view({s_.rows, D * s_.P});
    for (int d = 0; d < D; ++d) {
      at::Tensor h = start(call_.h0, d, s_.P), c = cell_.has_cell ? start(call_.c0, d, s_.H) : at::Tensor();
      const std::vector<Segment> all = segments_of(s_, d, call_.options.segment_steps(s_.T));
      for (size_t i = 0; i < all.size(); ++i) {
        if (i > 0) {
          out.saved.select(0, d).select(0, int64_t(i) - 1).copy_(h);
          if (cell_.has_cell) out.cells.select(0, d).select(0, int64_t(i) - 1).copy_(c);
        }
        const LayerOutputs part = run(all[i], h, c);
        columns(y, all[i]).copy_(part.y.view({all[i].sizes.rows, s_.P}));
        if (call_.options.check) check_states(call_, all[i].sizes, part.y, part.cells, d, all[i].begin);
        h.narrow(0, 0, all[i].sizes.B).copy_(part.h_n[0]);
        if (cell_.has_cell) c.narrow(0, 0, all[i].sizes.B).copy_(part.c_n[0]);
      }
      out.h_n.select(0, d).copy_(h);
      if (cell_.has_cell) out.c_n.select(0, d).copy_(c);
    }
    if (call_.options.check) check_final(call_, s_, out.c_n);
    return {out.y, out.h_n, out.c_n, out.saved, out.cells};
  }

  LayerGradients backward(const at::Tensor (&grads)[3], const at::Tensor& saved, const at::Tensor& cells,
                          const c10::List<bool>& mask) {
    const int64_t D = s_.directions;
    const auto zeros = [&](bool asked, at::IntArrayRef shape, const at::TensorOptions& options) {
      return at::zeros(asked ? shape : at::IntArrayRef({0}), options);
    };
    // One direction's share is written in place; a second one is added.
    const bool place = D == 1;
    at::Tensor grad_x =
        mask.get(0) && place ? at::empty(call_.x.sizes(), options_) : zeros(mask.get(0), call_.x.sizes(), options_);
    const at::Tensor x_rows = mask.get(0) ? grad_x.view({s_.rows, s_.I}) : at::Tensor();
    at::Tensor grad_h0 = zeros(mask.get(1), s_.h_shape(), options_);
    at::Tensor grad_c0 = zeros(mask.get(2) && cell_.has_cell, s_.c_shape(), options_);
    std::vector<at::Tensor> grad_weights;  // sums over segments: in the dtype of sums
    for (size_t i = 0; i < call_.weights.size(); ++i)
      grad_weights.push_back(zeros(mask.get(3 + i), call_.weights[i].sizes(), kept_));
    const at::Tensor grad_y = grads[0].defined() ? grads[0].reshape({s_.rows, D * s_.P}) : at::Tensor();
    const bool recording = is_recording(call_.options.recorder);
    at::Tensor flow = recording ? begin_flow(call_, s_, grads[0], grads[1], grads[2]) : at::Tensor();

    for (int d = 0; d < D; ++d) {
      // What comes back to the states, for every sample: of those that have ended the gradient of their final one.
      at::Tensor dh = incoming(grads[1], d, s_.P), dc = cell_.has_cell ? incoming(grads[2], d, s_.H) : at::Tensor();
      const std::vector<Segment> all = segments_of(s_, d, call_.options.segment_steps(s_.T));
      for (size_t i = all.size(); i-- > 0;) {
        const Segment& g = all[i];
        const int64_t n = g.sizes.B;
        const auto before = [&](const at::Tensor& kept) { return kept[d][int64_t(i) - 1].to(options_.dtype()); };
        const at::Tensor h = i ? before(saved) : start(call_.h0, d, s_.P);
        const at::Tensor c = !cell_.has_cell ? at::Tensor() : i ? before(cells) : start(call_.c0, d, s_.H);
        const LayerOutputs part = run(g, h, c);
        if (i + 1 < all.size()) cut(g, all[i + 1], dh, dc);

        BackwardTensors t;
        t.bptt = call_.options.bptt;
        t.bptt.behind = d == 1 ? g.begin : s_.T - g.end;
        t.y = part.y, t.saved = part.saved, t.cells = part.cells;
        if (grad_y.defined()) t.grad_y = columns(grad_y, g).contiguous();
        t.grad_h_n = dh.narrow(0, 0, n).clone();
        if (cell_.has_cell) t.grad_c_n = dc.narrow(0, 0, n).clone();
        t.grad_x = mask.get(0) && place ? x_rows.narrow(0, g.row, g.sizes.rows)
                                        : at::empty({mask.get(0) ? g.sizes.rows : 0, s_.I}, options_);
        t.grad_h0 = dh.narrow(0, 0, n);
        t.grad_c0 = cell_.has_cell ? dc.narrow(0, 0, n) : at::empty({0}, options_);
        for (size_t k = 0; k < s_.weights_each; ++k)
          t.grad_weights.push_back(at::empty(grad_weights[size_t(d) * s_.weights_each + k].sizes(), options_));
        const HeldInputs held = inputs(g, h, c);
        const at::Tensor own = recording ? flow[d].narrow(0, g.begin, g.sizes.T) : at::Tensor();
        const at::Tensor record = run_recorded(call_, g.sizes, passes_, held, t, own);
        if (call_.options.check) check_signals(call_, g.sizes, record, d, g.begin);
        if (mask.get(0) && !place) x_rows.narrow(0, g.row, g.sizes.rows).add_(t.grad_x);
        for (size_t k = 0; k < s_.weights_each; ++k)
          grad_weights[size_t(d) * s_.weights_each + k].add_(t.grad_weights[k]);
      }
      if (mask.get(1)) grad_h0.select(0, d).copy_(dh);
      if (mask.get(2) && cell_.has_cell) grad_c0.select(0, d).copy_(dc);
    }
    if (recording) keep_flow(call_, std::move(flow));
    for (at::Tensor& grad : grad_weights) grad = grad.to(options_.dtype());
    return {grad_x, grad_h0, grad_c0, std::move(grad_weights)};
  }

 private:
  at::Tensor start(const OptionalTensor& state, int d, int64_t features) const {
    return state ? state->select(0, d).clone() : at::zeros({s_.B, features}, options_);
  }
  at::Tensor incoming(const at::Tensor& grad, int d, int64_t features) const {
    return grad.defined() && grad.numel() > 0 ? grad.select(0, d).clone() : at::zeros({s_.B, features}, options_);
  }

  // A segment's rows and its direction's columns of a tensor [N, D*P].
  at::Tensor columns(const at::Tensor& rows, const Segment& g) const {
    return rows.narrow(0, g.row, g.sizes.rows).narrow(1, g.direction * s_.P, s_.P);
  }

  HeldInputs inputs(const Segment& g, const at::Tensor& h, const at::Tensor& c) const {
    const int64_t n = g.sizes.B;
    const at::Tensor x = s_.packed ? call_.x.narrow(0, g.row, g.sizes.rows) : call_.x.narrow(0, g.begin, g.sizes.T);
    const auto first = call_.weights.begin() + int64_t(size_t(g.direction) * s_.weights_each);
    const std::vector<at::Tensor> weights(first, first + int64_t(s_.weights_each));
    return HeldInputs(x, h.narrow(0, 0, n), c.defined() ? OptionalTensor(c.narrow(0, 0, n)) : std::nullopt, weights,
                      call_.has_biases);
  }

  // A segment forward, from the states h [B, P] and c [B, H], with all that its backward pass wants.
  LayerOutputs run(const Segment& g, const at::Tensor& h, const at::Tensor& c) const {
    const LayerOutputs out = empty_outputs(cell_, g.sizes, options_, true);
    const HeldInputs held = inputs(g, h, c);
    passes_.forward(call_.kind, g.sizes, held, out, true);
    return out;
  }

  // Truncated BPTT where a cut falls between two segments: nothing comes back from `next` to `g`.
  void cut(const Segment& g, const Segment& next, at::Tensor& dh, at::Tensor& dc) const {
    const int64_t steps = call_.options.bptt.steps;
    if (steps == 0) return;
    const bool reverse = g.direction == 1;
    // Steps that sample b makes after g, in processing order.
    const auto left = [&](int64_t b) {
      return reverse ? g.begin : (s_.packed ? s_.lengths[size_t(b)] : s_.T) - g.end;
    };
    const int64_t samples = std::min(g.sizes.B, next.sizes.B);
    for (int64_t b = 0, end = 0; b < samples; b = end) {  // all samples of one length at once
      while (end < samples && left(end) == left(b)) ++end;
      if (left(b) <= 0 || left(b) % steps != 0) continue;
      dh.narrow(0, b, end - b).zero_();
      if (dc.defined()) dc.narrow(0, b, end - b).zero_();
    }
  }

  const LayerCall& call_;
  const LayerSizes& s_;
  const LayerPasses& passes_;
  const CellInfo& cell_;
  const at::TensorOptions options_, kept_;  // of x; of what is kept and summed
};

}  // namespace

LayerResult forward_in_segments(const LayerCall& call, const LayerSizes& sizes, const LayerPasses& passes) {
  return Segments(call, sizes, passes).forward();
}

LayerGradients backward_in_segments(const LayerCall& call, const LayerSizes& sizes, const LayerPasses& passes,
                                    const at::Tensor (&grads)[3], const at::Tensor& saved, const at::Tensor& cells,
                                    const c10::List<bool>& output_mask) {
  return Segments(call, sizes, passes).backward(grads, saved, cells, output_mask);
}

}  // namespace rnnfast
