// SPDX-License-Identifier: Apache-2.0
// The LSTM layer's forward pass: packing, projection in chunks of steps, and the scan, whose pointwise part runs on
// the accumulators of the recurrent product.
// Per step: 8 B H^2 flops (2 B H 4H), 16 H^2 bytes of fp32 weights.
#pragma once

#include "cells/lstm.h"
#include "cpu/lstm_job.h"
#include "cpu/pack.h"

namespace RNNFAST_NAMESPACE {

// One thread's share of one direction.
template <class T>
class LstmForwardScan {
  using V = TargetVec<T>;
  static constexpr int N = V::kLanes;
  static constexpr int G = LstmCell::kGates;

 public:
  LstmForwardScan(const LstmForwardJob<T>& job, int direction, int index, int count, Barrier& barrier)
      : args_(*job.args),
        in_(job.args->in),
        seq_(job.args->in.sequence),
        plan_(*job.plan),
        space_(*job.space),
        workspace_(job.workspace + direction * job.space->size),
        d_(direction),
        reverse_(direction == 1),
        index_(index),
        count_(count),
        barrier_(barrier),
        H_(in_.H),
        I_(in_.I),
        y_stride_(in_.directions * in_.H),
        w_(in_.weights[direction]) {
    const int64_t unit_vectors = vectors_of<T>(H_);
    const bool by_units = plan_.split == Split::kUnits;
    units_ = by_units ? split_range(unit_vectors, index, count) : Range{0, unit_vectors};
    rows_ = by_units ? Range{0, seq_.B} : split_range(seq_.B, index, count);
    y_ = args_.y + d_ * H_;
    c_ = args_.c_n + d_ * seq_.B * H_;
    gates_ = args_.gates ? args_.gates + d_ * seq_.rows() * G * H_ : nullptr;
    cells_ = args_.cells ? args_.cells + d_ * seq_.rows() * H_ : nullptr;
    h0_ = in_.h0 ? in_.h0 + d_ * seq_.B * H_ : workspace_ + space_.zeros;
    h0_stride_ = in_.h0 ? H_ : 0;
    x_rows_merge_ = seq_.offsets != nullptr || seq_.B == 1 || in_.x_step == seq_.B * in_.x_row;
    x_row_stride_ = seq_.offsets == nullptr && seq_.B == 1 ? in_.x_step : in_.x_row;
  }

  void run() {
    if (index_ == 0) fill_zeros();
    set_initial_cells();
    if (plan_.weights == Weights::kDirect) {
      barrier_.wait(count_);
      run_direct();
    } else {
      pack();
      barrier_.wait(count_);
      run_packed();
    }
    copy_final_hidden();
  }

  // One step's recurrent product and pointwise part for up to kTileRows samples; called by for_row_blocks.
  template <int R>
  RNNFAST_INLINE void rows(int64_t first) {
    RowPointers<T, R> h;
    Tile<T, R, G> tile;
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      h.row[r] = first + r < had_step_ ? h_before_ + (first + r) * y_stride_ : h0_ + (first + r) * h0_stride_;
      const T* from = gates_x_ + (first + r) * G * H_ + unit_;
#pragma GCC unroll 4
      for (int g = 0; g < G; ++g) tile.acc[r][g] = load_first<V>(from + g * H_, valid_);
    }
    multiply(tile, h, panel_, G * N, H_);
#pragma GCC unroll 1
    for (int r = 0; r < R; ++r) finish(tile.acc[r], first + r);
  }

 private:
  struct ProjectBlock {
    LstmForwardScan& scan;
    T* out;  // gates_x of global row 0
    int64_t k, depth;
    template <int R>
    RNNFAST_INLINE void rows(int64_t first) {
      scan.project_rows<R>(first, out, k, depth);
    }
  };

  // The pointwise part of one sample and one vector of units. a: its gate pre-activations.
  RNNFAST_INLINE void finish(const V (&a)[G], int64_t b) {
    const auto gates = LstmCell::activate(a[0], a[1], a[2], a[3]);
    T* c = c_ + b * H_ + unit_;
    const auto state = LstmCell::forward(gates, load_first<V>(c, valid_));
    store_first(c, state.c, valid_);
    store_first(y_step_ + b * y_stride_ + unit_, state.h, valid_);
    if (gates_) {
      T* saved = gates_step_ + b * G * H_ + unit_;
      store_first(saved, gates.i, valid_);
      store_first(saved + H_, gates.f, valid_);
      store_first(saved + 2 * H_, gates.g, valid_);
      store_first(saved + 3 * H_, gates.o, valid_);
      store_first(cells_step_ + b * H_ + unit_, state.c, valid_);
    }
  }

  void fill_zeros() {
    T* zeros = workspace_ + space_.zeros;
    for (int64_t i = 0; i < H_; ++i) zeros[i] = T(0);
  }

  Range columns() const { return {units_.begin * N, units_.end * N < H_ ? units_.end * N : H_}; }

  void set_initial_cells() {
    const Range cols = columns();
    for (int64_t b = rows_.begin; b < rows_.end; ++b)
      for (int64_t j = cols.begin; j < cols.end; ++j)
        c_[b * H_ + j] = in_.c0 ? in_.c0[(d_ * seq_.B + b) * H_ + j] : T(0);
  }

  int valid_lanes(int64_t unit) const { return int(H_ - unit < N ? H_ - unit : N); }

  // By units each thread packs what it will read; by rows all share, and the barrier after this makes it visible.
  void pack() {
    const Range share = split_range(vectors_of<T>(H_), index_, count_);
    for (int64_t p = share.begin; p < share.end; ++p) {
      const int64_t unit = p * N;
      const int valid = valid_lanes(unit);
      pack_gate_panel(w_.w_hh, G, H_, H_, unit, valid, workspace_ + space_.packed_hh + p * H_ * G * N);
      pack_gate_panel(w_.w_ih, G, H_, I_, unit, valid, workspace_ + space_.packed_ih + p * I_ * G * N);
      T* bias = workspace_ + space_.bias + p * G * N;
      for (int g = 0; g < G; ++g)
        for (int l = 0; l < N; ++l) bias[g * N + l] = l < valid ? bias_at(g * H_ + unit + l) : T(0);
    }
  }

  T bias_at(int64_t j) const { return w_.b_ih ? w_.b_ih[j] + w_.b_hh[j] : T(0); }

  const T* x_row(int64_t row) const {
    if (x_rows_merge_) return in_.x + row * x_row_stride_;
    return in_.x + row / seq_.B * in_.x_step + row % seq_.B * in_.x_row;
  }

  template <int R>
  RNNFAST_INLINE void project_rows(int64_t first, T* out, int64_t k, int64_t depth) {
    RowPointers<T, R> x;
    Tile<T, R, G> tile;
    const T* bias = workspace_ + space_.bias + unit_ * G;
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      x.row[r] = x_row(first + r) + k;
      const T* from = out + (first + r) * G * H_ + unit_;
#pragma GCC unroll 4
      for (int g = 0; g < G; ++g)
        tile.acc[r][g] = k == 0 ? load<V>(bias + g * N) : load_first<V>(from + g * H_, valid_);
    }
    multiply(tile, x, panel_ + k * G * N, G * N, depth);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      T* to = out + (first + r) * G * H_ + unit_;
#pragma GCC unroll 4
      for (int g = 0; g < G; ++g) store_first(to + g * H_, tile.acc[r][g], valid_);
    }
  }

  // gates_x of time steps [begin, end), this thread's rows and units.
  void project(int64_t begin, int64_t end, T* out) {
    for (int64_t p = units_.begin; p < units_.end; ++p) {
      unit_ = p * N;
      valid_ = valid_lanes(unit_);
      panel_ = workspace_ + space_.packed_ih + p * I_ * G * N;
      for (int64_t k = 0; k < I_; k += plan_.block_k) {
        ProjectBlock block{*this, out, k, I_ - k < plan_.block_k ? I_ - k : plan_.block_k};
        if (plan_.split == Split::kUnits) {
          for_row_blocks(seq_.first_row(begin), seq_.first_row(end), block);
        } else {
          for (int64_t t = begin; t < end; ++t) {
            const int64_t row = seq_.first_row(t), active = seq_.active(t);
            for_row_blocks(row + rows_.begin, row + (rows_.end < active ? rows_.end : active), block);
          }
        }
      }
    }
  }

  void start_step(int64_t t) {
    const int64_t row = seq_.first_row(t);
    had_step_ = seq_.active_before(t, reverse_);
    h_before_ = y_ + (had_step_ ? seq_.first_row(reverse_ ? t + 1 : t - 1) : 0) * y_stride_;
    y_step_ = y_ + row * y_stride_;
    if (gates_) {
      gates_step_ = gates_ + row * G * H_;
      cells_step_ = cells_ + row * H_;
    }
    const int64_t active = seq_.active(t);
    step_end_ = rows_.end < active ? rows_.end : active;
  }

  void step(int64_t p, int64_t t, const T* gates_x) {
    start_step(t);
    gates_x_ = gates_x + seq_.first_row(t) * G * H_;
    // Forth and back on alternate steps: where the weights exceed the cache, their last part is still there.
    for (int64_t i = 0; i < units_.size(); ++i) {
      const int64_t panel = p % 2 == 0 ? units_.begin + i : units_.end - 1 - i;
      unit_ = panel * N;
      valid_ = valid_lanes(unit_);
      panel_ = workspace_ + space_.packed_hh + panel * H_ * G * N;
      for_row_blocks(rows_.begin, step_end_, *this);
    }
    if (plan_.split == Split::kUnits) barrier_.wait(count_);
  }

  void run_packed() {
    for (int64_t first = 0; first < seq_.T; first += plan_.chunk_steps) {
      const int64_t last = (seq_.T - first < plan_.chunk_steps ? seq_.T : first + plan_.chunk_steps) - 1;
      const int64_t t_first = Sequence::time_of(first, seq_.T, reverse_);
      const int64_t t_last = Sequence::time_of(last, seq_.T, reverse_);
      const int64_t begin = reverse_ ? t_last : t_first;
      const int64_t end = (reverse_ ? t_first : t_last) + 1;
      // In training gates_x is written where the activations will replace it.
      T* gates_x = gates_ ? gates_ : workspace_ + space_.gates_x - seq_.first_row(begin) * G * H_;
      // The rows of a packed sequence lie elsewhere in each chunk's buffer, where another thread may still be
      // reading.
      if (plan_.split == Split::kRows && seq_.offsets && !gates_) barrier_.wait(count_);
      project(begin, end, gates_x);
      for (int64_t p = first; p <= last; ++p) step(p, Sequence::time_of(p, seq_.T, reverse_), gates_x);
    }
  }

  // Weights as they stand: each gate of a unit is a dot product along K.
  template <int R>
  RNNFAST_INLINE void dot(const T* weights, int64_t K, const T* const (&a)[R], V (&sum)[R][G]) {
    int64_t k = 0;
    for (; k + N <= K; k += N) {
      V x[R];
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r) x[r] = load<V>(a[r] + k);
#pragma GCC unroll 4
      for (int g = 0; g < G; ++g) {
        const V w = load<V>(weights + g * H_ * K + k);
#pragma GCC unroll 4
        for (int r = 0; r < R; ++r) sum[r][g] = fma(w, x[r], sum[r][g]);
      }
    }
    if (k == K) return;
    const int left = int(K - k);
    for (int r = 0; r < R; ++r)
      for (int g = 0; g < G; ++g)
        sum[r][g] = fma(load_first<V>(weights + g * H_ * K + k, left), load_first<V>(a[r] + k, left), sum[r][g]);
  }

  template <int R>
  void direct_rows(int64_t t, int64_t first) {
    const T* x[R];
    const T* h[R];
    for (int r = 0; r < R; ++r) {
      const int64_t b = first + r;
      x[r] = in_.x_at(t, b);
      h[r] = b < had_step_ ? h_before_ + b * y_stride_ : h0_ + b * h0_stride_;
    }
    for (int64_t p = units_.begin; p < units_.end; ++p) {
      unit_ = p * N;
      valid_ = valid_lanes(unit_);
      alignas(64) T a[R][G][N] = {};
      for (int l = 0; l < valid_; ++l) {
        V sum[R][G];
        for (int r = 0; r < R; ++r)
          for (int g = 0; g < G; ++g) sum[r][g] = splat<V>(T(0));
        dot<R>(w_.w_ih + (unit_ + l) * I_, I_, x, sum);
        dot<R>(w_.w_hh + (unit_ + l) * H_, H_, h, sum);
        for (int r = 0; r < R; ++r)
          for (int g = 0; g < G; ++g) a[r][g][l] = sum_lanes(sum[r][g]) + bias_at(g * H_ + unit_ + l);
      }
      for (int r = 0; r < R; ++r) {
        V pre[G];
        for (int g = 0; g < G; ++g) pre[g] = load<V>(a[r][g]);
        finish(pre, first + r);
      }
    }
  }

  void run_direct() {
    for (int64_t p = 0; p < seq_.T; ++p) {
      const int64_t t = Sequence::time_of(p, seq_.T, reverse_);
      start_step(t);
      int64_t b = 0;
      for (; b + 2 <= step_end_; b += 2) direct_rows<2>(t, b);
      if (b < step_end_) direct_rows<1>(t, b);
      barrier_.wait(count_);
    }
  }

  // h_n: each sample's output at its last step in processing order.
  void copy_final_hidden() {
    const Range cols = columns();
    for (int64_t b = rows_.begin; b < rows_.end; ++b) {
      const int64_t t = reverse_ ? 0 : seq_.last_step(b);
      const T* from = y_ + (seq_.first_row(t) + b) * y_stride_;
      T* to = args_.h_n + (d_ * seq_.B + b) * H_;
      for (int64_t j = cols.begin; j < cols.end; ++j) to[j] = from[j];
    }
  }

  const LstmForward<T>& args_;
  const LstmInputs<T>& in_;
  const Sequence& seq_;
  const LayerPlan& plan_;
  const LstmForwardSpace& space_;
  T* workspace_;
  int d_;
  bool reverse_;
  int index_, count_;
  Barrier& barrier_;
  int64_t H_, I_, y_stride_;
  const LstmWeights<T>& w_;

  Range units_, rows_;
  T *y_, *c_, *gates_, *cells_;  // of this direction
  const T* h0_;
  int64_t h0_stride_;
  bool x_rows_merge_;
  int64_t x_row_stride_;

  // The step and panel at work.
  int64_t had_step_ = 0, step_end_ = 0, unit_ = 0;
  int valid_ = 0;
  const T *h_before_ = nullptr, *gates_x_ = nullptr, *panel_ = nullptr;
  T *y_step_ = nullptr, *gates_step_ = nullptr, *cells_step_ = nullptr;
};

template <class T>
void lstm_forward(const LstmForwardJob<T>& job, int index, int count) {
  const int directions = job.args->in.directions;
  if (job.plan->groups == 2 && count % 2 == 0) {
    const int group = index / (count / 2);
    LstmForwardScan<T>(job, group, index % (count / 2), count / 2, job.group[group]).run();
    return;
  }
  for (int d = 0; d < directions; ++d) LstmForwardScan<T>(job, d, index, count, *job.all).run();
}

}  // namespace RNNFAST_NAMESPACE
