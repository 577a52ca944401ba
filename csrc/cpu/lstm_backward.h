// SPDX-License-Identifier: Apache-2.0
// The LSTM layer's backward pass through time: the scan in reverse processing order, which turns the error signal
// of each step into delta, the gradient of its pre-activations. Then the products over all rows
// (cpu/lstm_gradients.h). Per step: 8 B H^2 flops (2 B 4H H), 16 H^2 bytes of fp32 weights.
#pragma once

#include "cells/lstm.h"
#include "cpu/lstm_gradients.h"
#include "cpu/lstm_job.h"
#include "cpu/pack.h"

namespace RNNFAST_NAMESPACE {

// One thread's share of one direction.
template <class T>
class LstmBackwardScan {
  using V = TargetVec<T>;
  static constexpr int N = V::kLanes;
  static constexpr int G = LstmCell::kGates;

 public:
  LstmBackwardScan(const LstmBackwardJob<T>& job, int direction, int index, int count, Barrier& barrier)
      : args_(*job.args),
        in_(job.args->in),
        seq_(job.args->in.sequence),
        d_(direction),
        reverse_(direction == 1),
        by_units_(job.plan->split == Split::kUnits),
        index_(index),
        count_(count),
        barrier_(barrier),
        H_(in_.H),
        y_stride_(in_.directions * in_.H) {
    units_ = by_units_ ? split_range(vectors_of<T>(H_), index, count) : Range{0, vectors_of<T>(H_)};
    rows_ = by_units_ ? Range{0, seq_.B} : split_range(seq_.B, index, count);
    T* space = job.workspace + direction * job.space->direction_size;
    delta_ = space + job.space->delta;
    packed_ = space + job.space->packed_hh;
    dc_ = space + job.space->dc;
    gates_ = args_.gates + d_ * seq_.rows() * G * H_;
    cells_ = args_.cells + d_ * seq_.rows() * H_;
    zeros_ = job.workspace + job.space->zeros;
  }

  void run() {
    set_initial_gradients();
    pack();
    if (!by_units_) barrier_.wait(count_);
    for (int64_t p = seq_.T - 1; p >= 0; --p) {
      step(Sequence::time_of(p, seq_.T, reverse_));
      if (by_units_) barrier_.wait(count_);
    }
    finish_initial_states();
  }

 private:
  // The recurrent product delta[next] W_hh for NV vectors of units, and the cell's backward on its accumulators.
  template <int NV, bool kRecurrent>
  struct StepBlock {
    LstmBackwardScan& s;
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
        for (int r = 0; r < R; ++r) delta.row[r] = s.delta_next_ + (first + r) * G * s.H_;
        multiply(tile, delta, weights, NV * N, G * s.H_);
      }
#pragma GCC unroll 1
      for (int r = 0; r < R; ++r)
#pragma GCC unroll 1
        for (int v = 0; v < NV; ++v)
          s.finish(tile.acc[r][v], first + r, panel.column + v * N, v == NV - 1 ? panel.last_valid : N, kRecurrent);
    }
  };

  // dL/dh of a sample's initial state: its first step's delta W_hh.
  template <int NV>
  struct InitialBlock {
    LstmBackwardScan& s;
    Panel panel;
    const T* weights;
    template <int R>
    RNNFAST_INLINE void rows(int64_t first) {
      Tile<T, R, NV> tile;
      tile.clear();
      RowPointers<T, R> delta;
      for (int r = 0; r < R; ++r) {
        const int64_t b = first + r;
        const int64_t t = s.reverse_ ? s.seq_.last_step(b) : 0;
        delta.row[r] = s.delta_ + (s.seq_.first_row(t) + b) * G * s.H_;
      }
      multiply(tile, delta, weights, NV * N, G * s.H_);
      for (int r = 0; r < R; ++r)
        for (int v = 0; v < NV; ++v)
          store_first(s.args_.grad_h0 + (s.d_ * s.seq_.B + first + r) * s.H_ + panel.column + v * N, tile.acc[r][v],
                      v == NV - 1 ? panel.last_valid : N);
    }
  };

  RNNFAST_INLINE void prefetch(int64_t b, int64_t unit) {
    const T* saved = gates_step_ + b * G * H_ + unit;
#pragma GCC unroll 4
    for (int g = 0; g < G; ++g) __builtin_prefetch(saved + g * H_);
    __builtin_prefetch(cells_before_ + b * H_ + unit);
    if (args_.grad_y) __builtin_prefetch(grad_y_step_ + b * y_stride_ + unit);
#pragma GCC unroll 4
    for (int g = 0; g < G; ++g) __builtin_prefetch(delta_step_ + b * G * H_ + unit + g * H_, 1);
  }

  // The cell's backward for one sample and one vector of units. back: what comes back from the next step.
  RNNFAST_INLINE void finish(V back, int64_t b, int64_t unit, int valid, bool recurrent) {
    V dh = back;
    if (!recurrent && args_.grad_h_n) dh = load_first<V>(args_.grad_h_n + (d_ * seq_.B + b) * H_ + unit, valid);
    if (args_.grad_y) dh = dh + load_first<V>(grad_y_step_ + b * y_stride_ + unit, valid);
    const T* saved = gates_step_ + b * G * H_ + unit;
    const LstmCell::Gates<V> gates = {load_first<V>(saved, valid), load_first<V>(saved + H_, valid),
                                      load_first<V>(saved + 2 * H_, valid), load_first<V>(saved + 3 * H_, valid)};
    const V tanh_c = tanh(load_first<V>(cells_step_ + b * H_ + unit, valid));
    const V c_prev = load_first<V>(b < had_step_ ? cells_before_ + b * H_ + unit : initial_cell(b) + unit, valid);
    T* dc_state = dc_ + b * H_ + unit;
    const V dc = load_first<V>(dc_state, valid) + LstmCell::cell_gradient(dh, gates, tanh_c);
    const auto result = LstmCell::backward(dh, dc, gates, c_prev, tanh_c);
    T* delta = delta_step_ + b * G * H_ + unit;
#pragma GCC unroll 4
    for (int g = 0; g < G; ++g) store_first(delta + g * H_, result.delta[g], valid);
    store_first(dc_state, result.dc_prev, valid);
  }

  const T* initial_cell(int64_t b) const { return in_.c0 ? in_.c0 + (d_ * seq_.B + b) * H_ : zeros_; }

  Range columns() const { return {units_.begin * N, units_.end * N < H_ ? units_.end * N : H_}; }

  // dc starts as c_n's gradient for every sample, whenever its last step is.
  void set_initial_gradients() {
    const Range cols = columns();
    for (int64_t b = rows_.begin; b < rows_.end; ++b)
      for (int64_t j = cols.begin; j < cols.end; ++j)
        dc_[b * H_ + j] = args_.grad_c_n ? args_.grad_c_n[(d_ * seq_.B + b) * H_ + j] : T(0);
  }

  // W_hh [4H, H] in plain panels. By rows every thread packs a part; the panels must be those of the scan, so the
  // share is taken in whole panels of the whole range.
  void pack() {
    const DenseRows<T> w{in_.weights[d_].w_hh, H_};
    int64_t turn = 0;
    for (int64_t v = units_.begin; v < units_.end; ++turn) {
      const Panel panel = plain_panel<T>(v, units_.end, H_);
      if (by_units_ || turn % count_ == index_) {
        pack_plain_panel<T>(w, 0, G * H_, panel, packed_ + v * N * G * H_);
      }
      v += panel.vectors;
    }
  }

  void step_panel(const Panel& panel, const T* weights) {
    switch (panel.vectors) {
      case 4:
        step_rows<4>(panel, weights);
        break;
      case 2:
        step_rows<2>(panel, weights);
        break;
      default:
        step_rows<1>(panel, weights);
        break;
    }
  }

  template <int NV>
  void step_rows(const Panel& panel, const T* weights) {
    StepBlock<NV, true> recurrent{*this, panel, weights};
    for_row_blocks(rows_.begin, recurrent_end_, recurrent);
    StepBlock<NV, false> last{*this, panel, weights};
    for_row_blocks(recurrent_end_ > rows_.begin ? recurrent_end_ : rows_.begin, step_end_, last);
  }

  void step(int64_t t) {
    const int64_t row = seq_.first_row(t), active = seq_.active(t);
    had_step_ = seq_.active_before(t, reverse_);
    const int64_t has_next = seq_.active_after(t, reverse_);
    step_end_ = rows_.end < active ? rows_.end : active;
    recurrent_end_ = rows_.end < has_next ? rows_.end : has_next;
    gates_step_ = gates_ + row * G * H_;
    cells_step_ = cells_ + row * H_;
    cells_before_ = cells_ + (had_step_ ? seq_.first_row(reverse_ ? t + 1 : t - 1) : 0) * H_;
    delta_step_ = delta_ + row * G * H_;
    delta_next_ = delta_ + (has_next ? seq_.first_row(reverse_ ? t - 1 : t + 1) : 0) * G * H_;
    if (args_.grad_y) grad_y_step_ = args_.grad_y + row * y_stride_ + d_ * H_;
    for (int64_t v = units_.begin; v < units_.end;) {
      const Panel panel = plain_panel<T>(v, units_.end, H_);
      step_panel(panel, packed_ + v * N * G * H_);
      v += panel.vectors;
    }
  }

  void finish_initial_states() {
    const Range cols = columns();
    if (args_.grad_c0)
      for (int64_t b = rows_.begin; b < rows_.end; ++b)
        for (int64_t j = cols.begin; j < cols.end; ++j) args_.grad_c0[(d_ * seq_.B + b) * H_ + j] = dc_[b * H_ + j];
    if (!args_.grad_h0) return;
    for (int64_t v = units_.begin; v < units_.end;) {
      const Panel panel = plain_panel<T>(v, units_.end, H_);
      const T* weights = packed_ + v * N * G * H_;
      if (panel.vectors == 4) {
        InitialBlock<4> block{*this, panel, weights};
        for_row_blocks(rows_.begin, rows_.end, block);
      } else if (panel.vectors == 2) {
        InitialBlock<2> block{*this, panel, weights};
        for_row_blocks(rows_.begin, rows_.end, block);
      } else {
        InitialBlock<1> block{*this, panel, weights};
        for_row_blocks(rows_.begin, rows_.end, block);
      }
      v += panel.vectors;
    }
  }

  const LstmBackward<T>& args_;
  const LstmInputs<T>& in_;
  const Sequence& seq_;
  int d_;
  bool reverse_, by_units_;
  int index_, count_;
  Barrier& barrier_;
  int64_t H_, y_stride_;

  Range units_, rows_;
  T *delta_, *packed_, *dc_;
  const T *gates_, *cells_, *zeros_;

  // The step at work.
  int64_t had_step_ = 0, step_end_ = 0, recurrent_end_ = 0;
  const T *gates_step_ = nullptr, *cells_step_ = nullptr, *cells_before_ = nullptr;
  const T *delta_next_ = nullptr, *grad_y_step_ = nullptr;
  T* delta_step_ = nullptr;
};

template <class T>
void lstm_backward(const LstmBackwardJob<T>& job, int index, int count) {
  const int directions = job.args->in.directions;
  if (index == 0) {
    T* zeros = job.workspace + job.space->zeros;
    for (int64_t i = 0; i < job.args->in.H; ++i) zeros[i] = T(0);
  }
  LstmGradients<T> gradients(job, index, count);
  gradients.pack();
  job.all->wait(count);
  if (job.plan->groups == 2 && count % 2 == 0) {
    const int group = index / (count / 2);
    LstmBackwardScan<T>(job, group, index % (count / 2), count / 2, job.group[group]).run();
  } else {
    for (int d = 0; d < directions; ++d) LstmBackwardScan<T>(job, d, index, count, *job.all).run();
  }
  job.all->wait(count);
  gradients.run();
}

}  // namespace RNNFAST_NAMESPACE
