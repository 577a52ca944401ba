// SPDX-License-Identifier: Apache-2.0
// A layer's backward pass through time: the scan in reverse processing order, which turns the error signal of each
// step into delta, the gradient of its pre-activations; in chunks of steps, each followed by its share of the
// gradients (cpu/gradients.h), so that delta never stands for the whole sequence.
// Per step: 2 B G H P flops, 4 G H P bytes of fp32 weights.
#pragma once

#include "cells/all.h"
#include "cpu/gradients.h"
#include "cpu/job.h"
#include "cpu/pack.h"

namespace RNNFAST_NAMESPACE {

// One thread's share of one direction.
template <class Cell, class T>
class BackwardScan {
  using V = TargetVec<T>;
  static constexpr int N = V::kLanes;
  static constexpr int G = Cell::kGates;
  static constexpr int kSaved = Cell::kSaved;

 public:
  BackwardScan(const BackwardJob<T>& job, int direction, int index, int count, Barrier& barrier,
               Gradients<Cell, T>& gradients)
      : cell_(job.args->in.variant),
        args_(*job.args),
        in_(job.args->in),
        seq_(job.args->in.sequence),
        space_(*job.space),
        chunk_steps_(job.plan->chunk_steps),
        gradients_(gradients),
        d_(direction),
        reverse_(direction == 1),
        by_units_(job.plan->split == Split::kUnits),
        index_(index),
        count_(count),
        barrier_(barrier),
        H_(in_.H),
        P_(in_.P),
        y_stride_(in_.directions * in_.P),
        delta_stride_(Cell::kDelta * in_.H) {
    const auto share = [&](int64_t columns) {
      const int64_t vectors = vectors_of<T>(columns);
      return by_units_ ? split_range(vectors, index, count) : Range{0, vectors};
    };
    units_ = share(H_);
    outputs_ = share(P_);
    rows_ = by_units_ ? Range{0, seq_.B} : split_range(seq_.B, index, count);
    T* const space = job.workspace + direction * space_.direction_size;
    delta_ = delta_step_ = space + space_.delta;
    edge_ = space + space_.edge;
    grad_h_ = space + space_.grad_h;
    cell_output_ = space + space_.cell_output;
    packed_hh_ = space + space_.packed_hh;
    packed_hr_ = space + space_.packed_hr;
    carry_ = space + space_.carry;
    zeros_ = job.workspace + space_.zeros;
    if (kSaved > 0) saved_ = args_.saved + d_ * seq_.rows() * kSaved * H_;
    if (Cell::kHasCell) cells_ = args_.cells + d_ * seq_.rows() * H_;
  }

  void run() {
    set_initial_carry();
    pack();
    barrier_.wait(count_);
    GradientChunk<T> chunk{0, 0, delta_, grad_h_, cell_output_, true};
    for (int64_t end = seq_.T; end > 0; end -= chunk_steps_, chunk.first = false) {
      const int64_t begin = end > chunk_steps_ ? end - chunk_steps_ : 0;  // in processing order
      chunk.t_begin = Sequence::time_of(reverse_ ? end - 1 : begin, seq_.T, reverse_);
      chunk.t_end = Sequence::time_of(reverse_ ? begin : end - 1, seq_.T, reverse_) + 1;
      first_row_ = seq_.first_row(chunk.t_begin);
      for (int64_t p = end - 1; p >= begin; --p) step(Sequence::time_of(p, seq_.T, reverse_));
      if (begin > 0) keep_edge();
      if (!by_units_) barrier_.wait(count_);
      gradients_.run(chunk);
      if (begin > 0) barrier_.wait(count_);  // the next chunk stands where this one did
    }
    finish_initial_cells();
  }

 private:
  // A product delta W_hh for NV vectors of columns of h, at each row given to an epilogue.
  template <int NV, bool kRecurrent>
  struct StepBlock {
    BackwardScan& s;
    Panel panel;
    const T* weights;
    template <int R>
    RNNFAST_INLINE void rows(int64_t first) {
      // What the pointwise part will read, saved long ago, arrives while the product runs.
#pragma GCC unroll 1
      for (int r = 0; r < R; ++r)
#pragma GCC unroll 1
        for (int v = 0; v < NV; ++v) s.prefetch(first + r, panel.column + v * N);
      Tile<T, R, NV> tile;
      tile.clear();
      if constexpr (kRecurrent) {
        RowPointers<T, R> delta;
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) delta.row[r] = s.delta_next_ + (first + r) * s.next_stride_;
        multiply(tile, delta, weights, NV * N, G * s.H_);
      }
#pragma GCC unroll 1
      for (int r = 0; r < R; ++r)
#pragma GCC unroll 1
        for (int v = 0; v < NV; ++v)
          s.receive(tile.acc[r][v], first + r, panel.column + v * N, v == NV - 1 ? panel.last_valid : N,
                    kRecurrent);
    }
  };

  // With a projection: dL/dh W_hr, the gradient of the cell's output.
  template <int NV>
  struct OutputBlock {
    BackwardScan& s;
    Panel panel;
    const T* weights;
    template <int R>
    RNNFAST_INLINE void rows(int64_t first) {
      Tile<T, R, NV> tile;
      tile.clear();
      RowPointers<T, R> grad;
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) grad.row[r] = s.grad_h_step_ + (first + r) * s.P_;
      multiply(tile, grad, weights, NV * N, s.P_);
#pragma GCC unroll 1
      for (int r = 0; r < R; ++r)
#pragma GCC unroll 1
        for (int v = 0; v < NV; ++v)
          s.finish(tile.acc[r][v], first + r, panel.column + v * N, v == NV - 1 ? panel.last_valid : N);
    }
  };

  // dL/dh of the initial state of samples whose first step this is: its delta W_hh.
  template <int NV>
  struct InitialBlock {
    BackwardScan& s;
    Panel panel;
    const T* weights;
    template <int R>
    RNNFAST_INLINE void rows(int64_t first) {
      Tile<T, R, NV> tile;
      tile.clear();
      RowPointers<T, R> delta;
      for (int r = 0; r < R; ++r)
        delta.row[r] = s.delta_step_ + (first + r) * s.delta_stride_ + Cell::kDeltaRecurrent * s.H_;
      multiply(tile, delta, weights, NV * N, G * s.H_);
      for (int r = 0; r < R; ++r)
        for (int v = 0; v < NV; ++v) {
          const int valid = v == NV - 1 ? panel.last_valid : N;
          const int64_t unit = panel.column + v * N;
          V dh = tile.acc[r][v];
          if constexpr (Cell::kDirect) dh = dh + load_first<V>(s.carry_ + (first + r) * s.H_ + unit, valid);
          store_first(s.args_.grad_h0 + (s.d_ * s.seq_.B + first + r) * s.P_ + unit, dh, valid);
        }
    }
  };

  RNNFAST_INLINE void prefetch(int64_t b, int64_t unit) {
    if constexpr (kSaved > 0) {
      const T* saved = saved_step_ + b * kSaved * H_ + unit;
#pragma GCC unroll 4
      for (int s = 0; s < kSaved; ++s) __builtin_prefetch(saved + s * H_);
    }
    if constexpr (Cell::kHasCell) __builtin_prefetch(cells_before_ + b * H_ + unit);
    if (args_.grad_y) __builtin_prefetch(grad_y_step_ + b * y_stride_ + unit);
    T* delta = delta_step_ + b * delta_stride_ + unit;
#pragma GCC unroll 4
    for (int g = 0; g < Cell::kDelta; ++g) __builtin_prefetch(delta + g * H_, 1);
  }

  // The total error signal of one sample and one vector of columns of h. back: what comes back from the next step.
  RNNFAST_INLINE void receive(V back, int64_t b, int64_t column, int valid, bool recurrent) {
    V dh = back;
    if (!recurrent && args_.grad_h_n) dh = load_first<V>(args_.grad_h_n + (d_ * seq_.B + b) * P_ + column, valid);
    if (args_.grad_y) dh = dh + load_first<V>(grad_y_step_ + b * y_stride_ + column, valid);
    if constexpr (Cell::kHasCell)
      if (in_.projection) return store_first(grad_h_step_ + b * P_ + column, dh, valid);
    finish(dh, b, column, valid);
  }

  // The cell's backward for one sample and one vector of units. dh: the gradient of the cell's output.
  RNNFAST_INLINE void finish(V dh, int64_t b, int64_t unit, int valid) {
    typename Cell::template Seen<V> seen;
    if constexpr (kSaved > 0) {
      const T* saved = saved_step_ + b * kSaved * H_ + unit;
#pragma GCC unroll 4
      for (int s = 0; s < kSaved; ++s) seen.saved[s] = load_first<V>(saved + s * H_, valid);
    }
    if constexpr (Cell::kBackwardSeesHidden) seen.h = load_first<V>(y_step_ + b * y_stride_ + unit, valid);
    if constexpr (Cell::kBackwardSeesPrevious)
      seen.h_prev = load_first<V>((b < had_step_ ? y_before_ + b * y_stride_ : initial_hidden(b)) + unit, valid);
    T* const carry = carry_ + b * H_ + unit;
    V dc = dh;
    if constexpr (Cell::kHasCell) {
      seen.c = load_first<V>(cells_step_ + b * H_ + unit, valid);
      seen.c_prev = load_first<V>((b < had_step_ ? cells_before_ + b * H_ : initial_cell(b)) + unit, valid);
      dc = load_first<V>(carry, valid) + cell_.cell_gradient(dh, seen);
      if (in_.projection) store_first(output_step_ + b * H_ + unit, cell_.output(seen), valid);
    }
    if constexpr (Cell::kDirect) dh = dh + load_first<V>(carry, valid);
    const auto result = cell_.backward(dh, dc, seen);
    T* const delta = delta_step_ + b * delta_stride_ + unit;
#pragma GCC unroll 4
    for (int g = 0; g < Cell::kDelta; ++g) store_first(delta + g * H_, result.delta[g], valid);
    if constexpr (Cell::kHasCell || Cell::kDirect) store_first(carry, result.carry, valid);
  }

  const T* initial_cell(int64_t b) const { return in_.c0 ? in_.c0 + (d_ * seq_.B + b) * H_ : zeros_; }
  const T* initial_hidden(int64_t b) const { return in_.h0 ? in_.h0 + (d_ * seq_.B + b) * P_ : zeros_; }

  Range unit_columns() const { return {units_.begin * N, units_.end * N < H_ ? units_.end * N : H_}; }

  // dc starts as c_n's gradient for every sample, whenever its last step is.
  void set_initial_carry() {
    if constexpr (!Cell::kHasCell && !Cell::kDirect) return;
    const T* from = Cell::kHasCell ? args_.grad_c_n : nullptr;
    const Range cols = unit_columns();
    for (int64_t b = rows_.begin; b < rows_.end; ++b)
      for (int64_t j = cols.begin; j < cols.end; ++j)
        carry_[b * H_ + j] = from ? from[(d_ * seq_.B + b) * H_ + j] : T(0);
  }

  // W_hh [G*H, P] and W_hr [P, H] in plain panels. By rows every thread packs a part; the panels must be those of
  // the scan, so the share is taken in whole panels of the whole range.
  void pack() {
    pack_panels(in_.weights[d_].w_hh, G * H_, P_, outputs_, packed_hh_);
    if (in_.projection) pack_panels(in_.weights[d_].w_hr, P_, H_, units_, packed_hr_);
  }

  void pack_panels(const T* weights, int64_t K, int64_t columns, Range vectors, T* packed) {
    const DenseRows<T> w{weights, columns};
    int64_t turn = 0;
    for_panels<T>(vectors, columns, [&](auto, const Panel& panel) {
      if (by_units_ || turn++ % count_ == index_) pack_plain_panel<T>(w, 0, K, panel, packed + panel.column * K);
    });
  }

  void step(int64_t t) {
    const int64_t row = seq_.first_row(t), active = seq_.active(t), local = row - first_row_;
    had_step_ = seq_.active_before(t, reverse_);
    const int64_t has_next = seq_.active_after(t, reverse_);
    const int64_t before = had_step_ ? seq_.first_row(reverse_ ? t + 1 : t - 1) : 0;
    const int64_t end = rows_.end < active ? rows_.end : active;
    const int64_t recurrent_end = rows_.end < has_next ? rows_.end : has_next;
    delta_next_ = edge_kept_ ? edge_ : delta_step_ + Cell::kDeltaRecurrent * H_;
    next_stride_ = edge_kept_ ? G * H_ : delta_stride_;
    edge_kept_ = false;
    delta_step_ = delta_ + local * delta_stride_;
    step_end_ = end;
    if constexpr (kSaved > 0) saved_step_ = saved_ + row * kSaved * H_;
    if constexpr (Cell::kHasCell) {
      cells_step_ = cells_ + row * H_;
      cells_before_ = cells_ + before * H_;
      grad_h_step_ = grad_h_ + local * P_;
      output_step_ = cell_output_ + local * H_;
    }
    y_step_ = args_.y + row * y_stride_ + d_ * P_;
    y_before_ = args_.y + before * y_stride_ + d_ * P_;
    if (args_.grad_y) grad_y_step_ = args_.grad_y + row * y_stride_ + d_ * P_;
    for_panels<T>(outputs_, P_, [&](auto nv, const Panel& panel) {
      const T* weights = packed_hh_ + panel.column * G * H_;
      StepBlock<nv.value, true> recurrent{*this, panel, weights};
      for_row_blocks(rows_.begin, recurrent_end, recurrent);
      StepBlock<nv.value, false> last{*this, panel, weights};
      for_row_blocks(recurrent_end > rows_.begin ? recurrent_end : rows_.begin, end, last);
    });
    if (by_units_) barrier_.wait(count_);
    if constexpr (Cell::kHasCell) {
      if (in_.projection) {
        for_panels<T>(units_, H_, [&](auto nv, const Panel& panel) {
          OutputBlock<nv.value> block{*this, panel, packed_hr_ + panel.column * P_};
          for_row_blocks(rows_.begin, end, block);
        });
        if (by_units_) barrier_.wait(count_);
      }
    }
    if (args_.grad_h0 && had_step_ < active) {
      const int64_t begin = rows_.begin > had_step_ ? rows_.begin : had_step_;
      for_panels<T>(outputs_, P_, [&](auto nv, const Panel& panel) {
        InitialBlock<nv.value> block{*this, panel, packed_hh_ + panel.column * G * H_};
        for_row_blocks(begin, end, block);
      });
    }
  }

  // What the next chunk's first step needs of this one's delta.
  void keep_edge() {
    const Range cols = unit_columns();
    for (int64_t b = rows_.begin; b < step_end_; ++b)
      for (int g = 0; g < G; ++g)
        for (int64_t j = cols.begin; j < cols.end; ++j)
          edge_[(b * G + g) * H_ + j] = delta_step_[b * delta_stride_ + (Cell::kDeltaRecurrent + g) * H_ + j];
    edge_kept_ = true;
  }

  void finish_initial_cells() {
    if (!Cell::kHasCell || !args_.grad_c0) return;
    const Range cols = unit_columns();
    for (int64_t b = rows_.begin; b < rows_.end; ++b)
      for (int64_t j = cols.begin; j < cols.end; ++j)
        args_.grad_c0[(d_ * seq_.B + b) * H_ + j] = carry_[b * H_ + j];
  }

  const Cell cell_;
  const LayerBackward<T>& args_;
  const LayerInputs<T>& in_;
  const Sequence& seq_;
  const BackwardSpace& space_;
  const int64_t chunk_steps_;
  Gradients<Cell, T>& gradients_;
  int d_;
  bool reverse_, by_units_;
  int index_, count_;
  Barrier& barrier_;
  int64_t H_, P_, y_stride_, delta_stride_;

  Range units_, outputs_, rows_;  // vectors of hidden units, vectors of columns of h, samples
  T *delta_, *edge_, *grad_h_, *cell_output_, *packed_hh_, *packed_hr_, *carry_;
  const T *saved_ = nullptr, *cells_ = nullptr, *zeros_;

  // The chunk and the step at work.
  int64_t first_row_ = 0, had_step_ = 0, step_end_ = 0, next_stride_ = 0;
  bool edge_kept_ = false;
  const T *saved_step_ = nullptr, *cells_step_ = nullptr, *cells_before_ = nullptr;
  const T *y_step_ = nullptr, *y_before_ = nullptr, *grad_y_step_ = nullptr, *delta_next_ = nullptr;
  T *delta_step_ = nullptr, *grad_h_step_ = nullptr, *output_step_ = nullptr;
};

template <class Cell, class T>
void layer_backward(const BackwardJob<T>& job, int index, int count) {
  const LayerBackward<T>& args = *job.args;
  const LayerInputs<T>& in = args.in;
  if (index == 0) {
    T* zeros = job.workspace + job.space->zeros;
    for (int64_t i = 0; i < (in.H > in.P ? in.H : in.P); ++i) zeros[i] = T(0);
  }
  job.all->wait(count);
  if (job.plan->groups == 2 && count % 2 == 0) {
    // The second direction's dL/dx has a place of its own, and is added when both are done.
    const int half = count / 2, d = index / half;
    T* second = args.grad_x ? job.workspace + job.space->grad_x : nullptr;
    Gradients<Cell, T> gradients(job, d, index % half, half, index, count, d == 0 ? args.grad_x : second, false);
    BackwardScan<Cell, T>(job, d, index % half, half, job.group[d], gradients).run();
    job.all->wait(count);
    if (!second) return;
    const Range share = split_range(in.sequence.rows() * in.I, index, count);
    for (int64_t i = share.begin; i < share.end; ++i) args.grad_x[i] += second[i];
    return;
  }
  for (int d = 0; d < in.directions; ++d) {
    Gradients<Cell, T> gradients(job, d, index, count, index, count, args.grad_x, d > 0);
    BackwardScan<Cell, T>(job, d, index, count, *job.all, gradients).run();
    job.all->wait(count);  // the next direction adds to dL/dx, by other rows
  }
}

}  // namespace RNNFAST_NAMESPACE
