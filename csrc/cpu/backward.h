// SPDX-License-Identifier: Apache-2.0
// A layer's backward pass through time: the scan in reverse processing order, which turns the error signal of each
// step into delta, the gradient of its pre-activations; in chunks of steps, each followed by its share of the
// gradients (cpu/gradients.h), so that delta never stands for the whole sequence.
// Per step: 2 B G H P flops, 4 G H P bytes of fp32 weights.
#pragma once

#include "cells/all.h"
#include "cpu/backward_step.h"
#include "cpu/gradients.h"
#include "cpu/job.h"
#include "cpu/pack.h"

namespace RNNFAST_NAMESPACE {

// One thread's share of one direction.
template <class Cell, class T>
class BackwardScan : BackwardStep<Cell, T> {
  using Step = BackwardStep<Cell, T>;
  using Step::args_, Step::in_, Step::seq_, Step::control_;
  using Step::d_, Step::reverse_, Step::by_units_, Step::index_, Step::count_, Step::barrier_;
  using Step::delta_, Step::grad_h_, Step::cell_output_, Step::carry_;
  using Step::H_, Step::P_, Step::delta_stride_, Step::units_, Step::outputs_, Step::rows_;
  using Step::N, Step::G;
  using Step::staged_, Step::had_step_, Step::has_next_, Step::step_end_, Step::delta_step_, Step::grad_h_step_;
  using typename Step::V;

 public:
  BackwardScan(const BackwardJob<T>& job, int direction, int index, int count, Barrier& barrier,
               Gradients<Cell, T>& gradients)
      : Step(job, direction, index, count, barrier), chunk_steps_(job.plan->chunk_steps), gradients_(gradients) {
    T* const memory = job.workspace + direction * job.space->direction_size;
    edge_ = memory + job.space->edge;
    packed_hh_ = memory + job.space->packed_hh;
    packed_hr_ = memory + job.space->packed_hr;
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
  // A product delta W_hh for NV vectors of columns of h, at each row given to an epilogue: the rest of the step, or
  // (staged) only its signal's way into memory. Known to the compiler, so that one costs the other nothing.
  template <int NV, bool kRecurrent, bool kStaged>
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
        if constexpr (kStaged) {
          multiply_apart(tile, delta, weights, NV * N, G * s.H_, N);
        } else {
          multiply(tile, delta, weights, NV * N, G * s.H_);
        }
      }
#pragma GCC unroll 1
      for (int r = 0; r < R; ++r)
#pragma GCC unroll 1
        for (int v = 0; v < NV; ++v) {
          const int64_t column = panel.column + v * N;
          const int valid = v == NV - 1 ? panel.last_valid : N;
          if constexpr (kStaged) {
            s.stage(tile.acc[r][v], first + r, column, valid);
          } else {
            s.receive(tile.acc[r][v], first + r, column, valid, kRecurrent);
          }
        }
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
          s.receive_output(tile.acc[r][v], first + r, panel.column + v * N, v == NV - 1 ? panel.last_valid : N);
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

  // dc starts as c_n's gradient for every sample, whenever its last step is.
  void set_initial_carry() {
    if constexpr (!Cell::kHasCell && !Cell::kDirect) return;
    const T* from = Cell::kHasCell ? args_.grad_c_n : nullptr;
    const Range cols = this->unit_columns();
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
    // What the step after this one left.
    delta_next_ = edge_kept_ ? edge_ : delta_step_ + Cell::kDeltaRecurrent * H_;
    next_stride_ = edge_kept_ ? G * H_ : delta_stride_;
    edge_kept_ = false;
    this->start_step(t, seq_.first_row(t) - first_row_);
    const int64_t end = step_end_, comes_back = control_.all_cut() ? 0 : has_next_;
    const int64_t recurrent_end = rows_.end < comes_back ? rows_.end : comes_back;
    if (staged_) {
      error_signal<true>(recurrent_end);
    } else {
      error_signal<false>(recurrent_end);
    }
    if (control_.active()) this->limit_hidden();
    if constexpr (Cell::kHasCell) {
      if (in_.projection) {
        if (by_units_) barrier_.wait(count_);
        for_panels<T>(units_, H_, [&](auto nv, const Panel& panel) {
          OutputBlock<nv.value> block{*this, panel, packed_hr_ + panel.column * P_};
          for_row_blocks(rows_.begin, end, block);
        });
      }
    }
    if (control_.active()) this->finish_controlled();
    if (by_units_) barrier_.wait(count_);
    if (args_.grad_h0 && had_step_ < seq_.active(t)) {
      const int64_t begin = rows_.begin > had_step_ ? rows_.begin : had_step_;
      for_panels<T>(outputs_, P_, [&](auto nv, const Panel& panel) {
        InitialBlock<nv.value> block{*this, panel, packed_hh_ + panel.column * G * H_};
        for_row_blocks(begin, end, block);
      });
    }
  }

  // The total dL/dh of this thread's share of the step; without staging, all of its backward pass.
  template <bool kStaged>
  void error_signal(int64_t recurrent_end) {
    for_panels<T>(outputs_, P_, [&](auto nv, const Panel& panel) {
      const T* weights = packed_hh_ + panel.column * G * H_;
      StepBlock<nv.value, true, kStaged> recurrent{*this, panel, weights};
      for_row_blocks(rows_.begin, recurrent_end, recurrent);
      StepBlock<nv.value, false, kStaged> last{*this, panel, weights};
      for_row_blocks(recurrent_end > rows_.begin ? recurrent_end : rows_.begin, step_end_, last);
    });
  }

  // What the next chunk's first step needs of this one's delta.
  void keep_edge() {
    const Range cols = this->unit_columns();
    for (int64_t b = rows_.begin; b < step_end_; ++b)
      for (int g = 0; g < G; ++g)
        for (int64_t j = cols.begin; j < cols.end; ++j)
          edge_[(b * G + g) * H_ + j] = delta_step_[b * delta_stride_ + (Cell::kDeltaRecurrent + g) * H_ + j];
    edge_kept_ = true;
  }

  void finish_initial_cells() {
    if (!Cell::kHasCell || !args_.grad_c0) return;
    const Range cols = this->unit_columns();
    for (int64_t b = rows_.begin; b < rows_.end; ++b)
      for (int64_t j = cols.begin; j < cols.end; ++j)
        args_.grad_c0[(d_ * seq_.B + b) * H_ + j] = carry_[b * H_ + j];
  }

  const int64_t chunk_steps_;
  Gradients<Cell, T>& gradients_;
  T *edge_, *packed_hh_, *packed_hr_;

  // The chunk and the step at work.
  int64_t first_row_ = 0, next_stride_ = 0;
  bool edge_kept_ = false;
  const T* delta_next_ = nullptr;
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
