// SPDX-License-Identifier: Apache-2.0
// A layer's forward pass: packing, projection of the input in chunks of steps, and the scan, whose pointwise part
// runs on the accumulators of the recurrent product. Per step: 2 B G H P flops, 4 G H P bytes of fp32 weights.
#pragma once

#include "cells/all.h"
#include "cpu/forward_direct.h"
#include "cpu/forward_project.h"
#include "cpu/group.h"
#include "cpu/job.h"
#include "cpu/pack_layer.h"

namespace RNNFAST_NAMESPACE {

// One thread's share of one direction.
template <class Cell, class T>
class ForwardScan {
  using V = TargetVec<T>;
  static constexpr int N = V::kLanes;
  static constexpr int G = Cell::kGates;
  // Vectors of units in a full tile: cells of several gates fill it with the gates of one vector.
  static constexpr int kUnitVectors = G == 1 ? 4 : 1;

 public:
  ForwardScan(const ForwardJob<T>& job, int direction, int index, int count, Barrier& barrier)
      : cell(job.args->in.variant),
        args_(*job.args),
        in_(job.args->in),
        seq_(job.args->in.sequence),
        plan_(*job.plan),
        space_(*job.space),
        workspace_(job.workspace + direction * job.space->size),
        d_(direction),
        reverse_(direction == 1 || in_.reversed),
        by_units_(job.plan->split == Split::kUnits),
        index_(index),
        count_(count),
        barrier_(barrier),
        H_(in_.H),
        I_(in_.I),
        P_(in_.P),
        y_stride_(in_.directions * in_.P) {
    const auto share = [&](int64_t columns) {
      const int64_t vectors = vectors_of<T>(columns);
      return by_units_ ? split_range(vectors, index, count) : Range{0, vectors};
    };
    units_ = share(H_);
    outputs_ = share(P_);
    rows_ = by_units_ ? Range{0, seq_.B} : split_range(seq_.B, index, count);
    packed_ = args_.packed ? args_.packed + d_ * space_.packed.size : workspace_;
    y_ = args_.y + d_ * P_;
    c_ = Cell::kHasCell ? args_.c_n + d_ * seq_.B * H_ : nullptr;
    if (args_.training) {
      saved_ = Cell::kSaved > 0 ? args_.saved + d_ * seq_.rows() * Cell::kSaved * H_ : nullptr;
      cells_ = Cell::kHasCell ? args_.cells + d_ * seq_.rows() * H_ : nullptr;
    }
    cell_output_ = in_.projection ? workspace_ + space_.cell_output : nullptr;
    h0_ = in_.h0 ? in_.h0 + d_ * seq_.B * P_ : workspace_ + space_.zeros;
    h0_stride_ = in_.h0 ? P_ : 0;
    x_rows_merge_ = seq_.offsets != nullptr || seq_.B == 1 || in_.x_step == seq_.B * in_.x_row;
    x_row_stride_ = seq_.offsets == nullptr && seq_.B == 1 ? in_.x_step : in_.x_row;
  }

  void run() {
    if (index_ == 0) fill_zeros();
    if constexpr (Cell::kHasCell) set_initial_cells();
    if (plan_.weights == Weights::kDirect) {
      barrier_.wait(count_);
      run_direct();
    } else {
      if (args_.packed == nullptr)
        pack_direction<Cell>(in_, d_, space_.packed, plan_.input == InputWeights::kPacked, workspace_, index_,
                             count_);
      barrier_.wait(count_);
      run_packed();
    }
    copy_final_hidden();
  }

  // What the direct step (cpu/forward_direct.h) needs of a scan.
  const Cell cell;
  const LayerInputs<T>& inputs() const { return in_; }
  const LayerWeights<T>& weights() const { return in_.weights[d_]; }
  Range units() const { return units_; }
  int valid_lanes(int64_t unit) const { return int(H_ - unit < N ? H_ - unit : N); }

  const T* previous_hidden(int64_t b) const {
    return b < had_step_ ? h_before_ + b * y_stride_ : h0_ + b * h0_stride_;
  }

  // The pointwise part of one sample and one vector of units (W: V, or a wider one). a: its gate pre-activations;
  // of the cell's `apart` gates only the recurrent share, the input's being in x.
  template <class W>
  RNNFAST_INLINE void finish(const W (&a)[G], const W (&x)[G], int64_t b, int64_t unit, int valid) {
    W h_prev = splat<W>(T(0)), c_prev = h_prev;
    if constexpr (Cell::kForwardSeesHidden) h_prev = InMemory<W>::load(previous_hidden(b) + unit, valid);
    if constexpr (Cell::kHasCell) c_prev = InMemory<W>::load(c_ + b * H_ + unit, valid);
    const auto out = cell.forward(a, x, h_prev, c_prev);
    if constexpr (Cell::kHasCell) {
      InMemory<W>::store(c_ + b * H_ + unit, out.c, valid);
      if (cells_) InMemory<W>::store(cells_step_ + b * H_ + unit, out.c, valid);
    }
    InMemory<W>::store(cell_output_ ? cell_output_ + b * H_ + unit : y_step_ + b * y_stride_ + unit, out.h, valid);
    if constexpr (Cell::kSaved > 0)
      if (saved_) {
        T* saved = saved_step_ + b * Cell::kSaved * H_ + unit;
#pragma GCC unroll 4
        for (int s = 0; s < Cell::kSaved; ++s) InMemory<W>::store(saved + s * H_, out.saved[s], valid);
      }
  }

 private:
  template <class, class, int>
  friend struct ProjectBlock;

  // A tile of rows x U vectors of units, all gates of each. Panels of several vectors lie one behind another.
  template <int U, class Rows, class Tile>
  RNNFAST_INLINE void multiply_units(Tile& tile, const Rows& a, const T* panel, int64_t K, int64_t depth) {
    if constexpr (G == 1) {
      multiply_apart(tile, a, panel, N, depth, K * N);
    } else {
      static_assert(U == 1);
      multiply(tile, a, panel, G * N, depth);
    }
  }

  template <int U>
  struct StepBlock {
    ForwardScan& s;
    int64_t vector;  // of units

    template <int R>
    RNNFAST_INLINE void rows(int64_t first) {
      RowPointers<T, R> h;
      Tile<T, R, U * G> tile;
      const int64_t unit = vector * N;
      const int last = s.valid_lanes(unit + (U - 1) * N);
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        h.row[r] = s.previous_hidden(first + r);
        const T* from = s.gates_x_step_ + (first + r) * s.gates_x_stride_ + unit;
#pragma GCC unroll 4
        for (int u = 0; u < U; ++u)
#pragma GCC unroll 4
          for (int g = 0; g < G; ++g)
            tile.acc[r][u * G + g] = Cell::kApart[g]
                                         ? load<V>(s.bias(vector + u) + (G + g) * N)
                                         : load_first<V>(from + g * s.H_ + u * N, u == U - 1 ? last : N);
      }
      s.template multiply_units<U>(tile, h, s.packed_ + s.space_.packed.hh + vector * s.P_ * G * N, s.P_, s.P_);
#pragma GCC unroll 1
      for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
        for (int u = 0; u < U; ++u) {
          const int valid = u == U - 1 ? last : N;
          const T* from = s.gates_x_step_ + (first + r) * s.gates_x_stride_ + unit + u * N;
          V a[G], x[G];
#pragma GCC unroll 4
          for (int g = 0; g < G; ++g) {
            a[g] = tile.acc[r][u * G + g];
            x[g] = Cell::kApart[g] ? load_first<V>(from + g * s.H_, valid) : a[g];
          }
          s.finish(a, x, first + r, unit + u * N, valid);
        }
    }
  };

  // One sample, two vectors of units: their pointwise part at once, since its chain of some 150 cycles is latency,
  // which the product of a single row does not hide.
  RNNFAST_INLINE void step_single(int64_t b, int64_t vector) {
    using W = Group<V, 2>;
    const int64_t unit = vector * N;
    const int valid = int(H_ - unit < 2 * N ? H_ - unit : 2 * N);
    const T* const from = gates_x_step_ + b * gates_x_stride_ + unit;
    const RowPointers<T, 1> h{{previous_hidden(b)}};
    W a[G], x[G];
#pragma GCC unroll 2
    for (int u = 0; u < 2; ++u) {
      Tile<T, 1, G> tile;
#pragma GCC unroll 4
      for (int g = 0; g < G; ++g)
        tile.acc[0][g] = Cell::kApart[g] ? load<V>(bias(vector + u) + (G + g) * N)
                                         : load_first<V>(from + g * H_ + u * N, valid_lanes(unit + u * N));
      multiply(tile, h, packed_ + space_.packed.hh + (vector + u) * P_ * G * N, G * N, P_);
#pragma GCC unroll 4
      for (int g = 0; g < G; ++g) a[g].v[u] = tile.acc[0][g];
    }
#pragma GCC unroll 4
    for (int g = 0; g < G; ++g) x[g] = Cell::kApart[g] ? InMemory<W>::load(from + g * H_, valid) : a[g];
    finish(a, x, b, unit, valid);
  }

  // h = W_hr (cell's output), NV vectors of columns.
  template <int NV>
  struct OutputBlock {
    ForwardScan& s;
    int64_t vector;

    template <int R>
    RNNFAST_INLINE void rows(int64_t first) {
      RowPointers<T, R> a;
      Tile<T, R, NV> tile;
      tile.clear();
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) a.row[r] = s.cell_output_ + (first + r) * s.H_;
      multiply(tile, a, s.packed_ + s.space_.packed.hr + vector * s.H_ * N, N, s.H_, s.H_ * N);
      const int64_t left = s.P_ - (vector + NV - 1) * N;
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
        for (int v = 0; v < NV; ++v)
          store_first(s.y_step_ + (first + r) * s.y_stride_ + (vector + v) * N, tile.acc[r][v],
                      v == NV - 1 && left < N ? int(left) : N);
    }
  };

  const T* bias(int64_t vector) const { return packed_ + space_.packed.bias + vector * 2 * G * N; }

  void fill_zeros() {
    T* zeros = workspace_ + space_.zeros;
    for (int64_t i = 0; i < (H_ > P_ ? H_ : P_); ++i) zeros[i] = T(0);
  }

  Range columns(Range vectors, int64_t size) const {
    return {vectors.begin * N, vectors.end * N < size ? vectors.end * N : size};
  }

  void set_initial_cells() {
    const Range cols = columns(units_, H_);
    for (int64_t b = rows_.begin; b < rows_.end; ++b)
      for (int64_t j = cols.begin; j < cols.end; ++j)
        c_[b * H_ + j] = in_.c0 ? in_.c0[(d_ * seq_.B + b) * H_ + j] : T(0);
  }

  const T* x_row(int64_t row) const {
    if (x_rows_merge_) return in_.x + row * x_row_stride_;
    return in_.x + row / seq_.B * in_.x_step + row % seq_.B * in_.x_row;
  }

  // The panels of W_ih of some vectors of units, one behind another.
  const T* input_panel(int64_t vector, int vectors) {
    if (plan_.input == InputWeights::kPacked) return packed_ + space_.packed.ih + vector * I_ * G * N;
    T* panel = workspace_ + space_.panel + index_ * space_.panel_size;
    for (int u = 0; u < vectors; ++u)
      pack_gate_panel(weights().w_ih, G, H_, I_, (vector + u) * N, valid_lanes((vector + u) * N),
                      panel + u * I_ * G * N);
    return panel;
  }

  // gates_x of time steps [begin, end), this thread's rows and units.
  void project(int64_t begin, int64_t end, T* out) {
    for_groups<kUnitVectors>(units_, false, [&](auto u, int64_t vector) {
      const T* weights = input_panel(vector, u.value);
      for (int64_t k = 0; k < I_; k += plan_.block_k) {
        ProjectBlock<Cell, T, u.value> block{*this, vector, weights,
                                             out,   k,      I_ - k < plan_.block_k ? I_ - k : plan_.block_k};
        if (by_units_) {
          for_row_blocks<kRowsOf<u.value * G>>(seq_.first_row(begin), seq_.first_row(end), block);
        } else {
          for (int64_t t = begin; t < end; ++t) {
            const int64_t row = seq_.first_row(t), active = seq_.active(t);
            for_row_blocks<kRowsOf<u.value * G>>(row + rows_.begin, row + (rows_.end < active ? rows_.end : active),
                                                 block);
          }
        }
      }
    });
  }

  void start_step(int64_t t) {
    const int64_t row = seq_.first_row(t);
    had_step_ = seq_.active_before(t, reverse_);
    h_before_ = y_ + (had_step_ ? seq_.first_row(reverse_ ? t + 1 : t - 1) : 0) * y_stride_;
    y_step_ = y_ + row * y_stride_;
    if (saved_) saved_step_ = saved_ + row * Cell::kSaved * H_;
    if (cells_) cells_step_ = cells_ + row * H_;
    const int64_t active = seq_.active(t);
    step_end_ = rows_.end < active ? rows_.end : active;
  }

  void step(int64_t p, int64_t t, const T* gates_x) {
    start_step(t);
    gates_x_step_ = gates_x + seq_.first_row(t) * gates_x_stride_;
    // Forth and back on alternate steps: where the weights exceed the cache, their last part is still there.
    const bool single = G > 1 && step_end_ - rows_.begin == 1;
    const auto multiply_groups = [&](auto u, int64_t vector) {
      StepBlock<u.value> block{*this, vector};
      for_row_blocks<kRowsOf<u.value * G>>(rows_.begin, step_end_, block);
    };
    if (!single) {
      for_groups<kUnitVectors>(units_, p % 2 == 1, multiply_groups);
    } else if constexpr (G > 1) {
      for_groups<2>(units_, p % 2 == 1, [&](auto u, int64_t vector) {
        if constexpr (u.value == 2) {
          step_single(rows_.begin, vector);
        } else {
          multiply_groups(u, vector);
        }
      });
    }
    if (by_units_) barrier_.wait(count_);
    if (cell_output_ == nullptr) return;
    for_groups<4>(outputs_, false, [&](auto v, int64_t vector) {
      OutputBlock<v.value> block{*this, vector};
      for_row_blocks(rows_.begin, step_end_, block);
    });
    if (by_units_) barrier_.wait(count_);
  }

  void run_packed() {
    // Where the projected input stands until its step: among the saved values, or in y, to be replaced; or in a
    // buffer that does not grow with T.
    const bool in_saved = saved_ != nullptr && Cell::kSaved >= G;
    const bool in_y = G == 1 && !in_.projection;
    const bool in_buffer = !in_saved && !in_y;
    gates_x_stride_ = in_saved ? Cell::kSaved * H_ : in_y ? y_stride_ : G * H_;
    for (int64_t first = 0; first < seq_.T; first += plan_.chunk_steps) {
      const int64_t last = (seq_.T - first < plan_.chunk_steps ? seq_.T : first + plan_.chunk_steps) - 1;
      const int64_t t_first = Sequence::time_of(first, seq_.T, reverse_);
      const int64_t t_last = Sequence::time_of(last, seq_.T, reverse_);
      const int64_t begin = reverse_ ? t_last : t_first;
      const int64_t end = (reverse_ ? t_first : t_last) + 1;
      T* gates_x = in_saved ? saved_
                   : in_y   ? y_
                            : workspace_ + space_.gates_x - seq_.first_row(begin) * gates_x_stride_;
      // The rows of a packed sequence lie elsewhere in each chunk's buffer, where another thread may still be
      // reading.
      if (!by_units_ && seq_.offsets && in_buffer) barrier_.wait(count_);
      project(begin, end, gates_x);
      for (int64_t p = first; p <= last; ++p) step(p, Sequence::time_of(p, seq_.T, reverse_), gates_x);
    }
  }

  void run_direct() {
    for (int64_t p = 0; p < seq_.T; ++p) {
      const int64_t t = Sequence::time_of(p, seq_.T, reverse_);
      start_step(t);
      direct_step<Cell, T>(*this, t, step_end_);
      barrier_.wait(count_);
    }
  }

  // h_n: each sample's output at its last step in processing order.
  void copy_final_hidden() {
    const Range cols = columns(outputs_, P_);
    for (int64_t b = rows_.begin; b < rows_.end; ++b) {
      const int64_t t = reverse_ ? 0 : seq_.last_step(b);
      const T* from = y_ + (seq_.first_row(t) + b) * y_stride_;
      T* to = args_.h_n + (d_ * seq_.B + b) * P_;
      for (int64_t j = cols.begin; j < cols.end; ++j) to[j] = from[j];
    }
  }

  const LayerForward<T>& args_;
  const LayerInputs<T>& in_;
  const Sequence& seq_;
  const LayerPlan& plan_;
  const ForwardSpace& space_;
  T* workspace_;
  int d_;
  bool reverse_, by_units_;
  int index_, count_;
  Barrier& barrier_;
  int64_t H_, I_, P_, y_stride_;

  Range units_, outputs_, rows_;  // vectors of hidden units, vectors of columns of h, samples
  const T* packed_;
  T *y_, *c_, *saved_ = nullptr, *cells_ = nullptr, *cell_output_;  // of this direction; null where there is none
  const T* h0_;
  int64_t h0_stride_;
  bool x_rows_merge_;
  int64_t x_row_stride_;
  int64_t gates_x_stride_ = 0;

  // The step at work.
  int64_t had_step_ = 0, step_end_ = 0;
  const T *h_before_ = nullptr, *gates_x_step_ = nullptr;
  T *y_step_ = nullptr, *saved_step_ = nullptr, *cells_step_ = nullptr;
};

template <class Cell, class T>
void layer_forward(const ForwardJob<T>& job, int index, int count) {
  const int directions = job.args->in.directions;
  if (job.plan->groups == 2 && count % 2 == 0) {
    const int group = index / (count / 2);
    ForwardScan<Cell, T>(job, group, index % (count / 2), count / 2, job.group[group]).run();
    return;
  }
  for (int d = 0; d < directions; ++d) ForwardScan<Cell, T>(job, d, index, count, *job.all).run();
}

}  // namespace RNNFAST_NAMESPACE
