// SPDX-License-Identifier: Apache-2.0
// The backward pass's products over the rows of a chunk of steps, once its delta stands:
//   dx = delta_x W_ih        dW_ih = delta_x^T x        dW_hh = delta_h^T h_prev        db = sums of delta
//   with a projection: dW_hr = (dL/dh)^T (cell's output)
// delta_x and delta_h are the blocks of delta that belong to the input and to the recurrent share of the
// pre-activations (cells/list.h). dx is shared out by columns or rows; the weight gradients by columns of delta,
// that is rows of W, so every thread owns what it writes and the sums have one fixed order.
#pragma once

#include "cells/all.h"
#include "cpu/job.h"
#include "cpu/product.h"

namespace RNNFAST_NAMESPACE {

// Chunk of time steps [t_begin, t_end) whose rows of delta stand at `delta`.
template <class T>
struct GradientChunk {
  int64_t t_begin = 0, t_end = 0;
  const T* delta = nullptr;        // [rows, kDelta * H]
  const T* grad_h = nullptr;       // [rows, P], with a projection
  const T* cell_output = nullptr;  // [rows, H], likewise
  bool first = false;              // nothing has been added to the gradients before
};

// One thread's share of one direction's gradients.
template <class Cell, class T>
class Gradients {
  using V = TargetVec<T>;
  static constexpr int N = V::kLanes;
  static constexpr int G = Cell::kGates;
  static constexpr int kBlocks = Cell::kDelta;

 public:
  // grad_x: where this direction's dL/dx goes, or null; add: to what another direction has put there.
  Gradients(const BackwardJob<T>& job, int direction, int index, int count, int thread, int threads, T* grad_x,
            bool add)
      : args_(*job.args),
        in_(job.args->in),
        seq_(job.args->in.sequence),
        d_(direction),
        index_(index),
        count_(count),
        H_(in_.H),
        I_(in_.I),
        P_(in_.P),
        y_stride_(in_.directions * in_.P),
        block_k_(job.plan->block_k),
        grad_x_(grad_x),
        add_(add) {
    // Where the runtime gave fewer threads than planned, each has a larger share of the same space.
    const int64_t space = job.plan->threads * (job.space->thread_a + job.space->thread_b) / threads / 16 * 16;
    a_ = job.workspace + job.space->threads + thread * space;
    b_ = a_ + space - job.space->thread_b;
    zeros_ = job.workspace + job.space->zeros;
  }

  void run(const GradientChunk<T>& chunk) {
    first_row_ = seq_.first_row(chunk.t_begin);
    rows_ = seq_.first_row(chunk.t_end) - first_row_;
    if (grad_x_) input_gradient(chunk);
    const T* delta_h = chunk.delta + Cell::kDeltaRecurrent * H_;
    for (int64_t k = 0; k < rows_; k += block_k_) {
      const int64_t depth = rows_ - k < block_k_ ? rows_ - k : block_k_;
      const bool accumulate = !chunk.first || k > 0;
      bias_gradients(chunk, k, depth, accumulate);
      // By runs of columns whose rows of W lie one behind another.
      const Range share = split_range(G * H_, index_, count_);
      constexpr bool kSamePart = Cell::kDeltaRecurrent == 0 && Cell::kFirstGate == 0;
      for_runs(share, [&](Range run, int64_t row) {
        if (!args_.grad_w_ih[d_] && !(kSamePart && args_.grad_w_hh[d_])) return;
        pack_transposed(chunk.delta + k * delta_stride(), delta_stride(), depth, run, a_);
        weight_product(XRows{in_, first_row_}, I_, run, row, k, depth, args_.grad_w_ih[d_], accumulate);
        if (kSamePart)
          weight_product(HiddenRows{*this, chunk.t_begin}, P_, run, row, k, depth, args_.grad_w_hh[d_], accumulate);
      });
      if (!kSamePart && args_.grad_w_hh[d_]) {
        pack_transposed(delta_h + k * delta_stride(), delta_stride(), depth, share, a_);
        weight_product(HiddenRows{*this, chunk.t_begin}, P_, share, share.begin, k, depth, args_.grad_w_hh[d_],
                       accumulate);
      }
      if (args_.grad_w_hr[d_]) {
        const Range outputs = split_range(P_, index_, count_);
        pack_transposed(chunk.grad_h + k * P_, P_, depth, outputs, a_);
        weight_product(DenseRows<T>{chunk.cell_output, H_}, H_, outputs, outputs.begin, k, depth,
                       args_.grad_w_hr[d_], accumulate);
      }
    }
  }

 private:
  int64_t delta_stride() const { return kBlocks * H_; }

  // The row of W_ih (and b_ih) that column `column` of delta belongs to.
  int64_t weight_row(int64_t column) const {
    const int64_t row = column + Cell::kFirstGate * H_;
    return row < G * H_ ? row : row - G * H_;
  }

  template <class F>
  void for_runs(Range columns, F f) {
    const int64_t wrap = (G - Cell::kFirstGate) % G * H_;  // where weight_row starts again at 0
    if (wrap > columns.begin && wrap < columns.end) {
      f(Range{columns.begin, wrap}, weight_row(columns.begin));
      f(Range{wrap, columns.end}, weight_row(wrap));
    } else if (columns.size() > 0) {
      f(columns, weight_row(columns.begin));
    }
  }

  // Shared out by columns of x where each thread has a full panel of its own, else by rows. W_ih is packed a block
  // of a panel at a time, its rows in the order of delta's columns.
  void input_gradient(const GradientChunk<T>& chunk) {
    const int64_t vectors = vectors_of<T>(I_);
    const bool by_columns = vectors >= 4 * count_;
    const Range columns = by_columns ? split_range(vectors, index_, count_) : Range{0, vectors};
    const Range rows = by_columns ? Range{0, rows_} : split_range(rows_, index_, count_);
    const T* w = in_.weights[d_].w_ih;
    const auto weight_rows = [&](int64_t k) { return w + weight_row(k) * I_; };
    const RowMajorA<T> a{chunk.delta, delta_stride()};
    T* out = grad_x_ + first_row_ * I_;
    for_panels<T>(columns, I_, [&](auto nv, const Panel& panel) {
      for (int64_t k = 0; k < G * H_; k += block_k_) {
        const int64_t depth = G * H_ - k < block_k_ ? G * H_ - k : block_k_;
        pack_plain_panel<T>(weight_rows, k, k + depth, panel, b_);
        product(nv, a, rows, k, depth, b_, panel, out, I_, add_ || k > 0);
      }
    });
  }

  // Rows of x and of h_prev by their number in the chunk.
  struct XRows {
    const LayerInputs<T>& in;
    int64_t first_row;
    RNNFAST_INLINE const T* operator()(int64_t k) const {
      const int64_t row = first_row + k;
      if (in.sequence.offsets) return in.x + row * in.x_row;
      return in.x + row / in.sequence.B * in.x_step + row % in.sequence.B * in.x_row;
    }
  };

  struct HiddenRows {
    const Gradients& g;
    mutable int64_t t;  // the step of the row before: rows are asked for in order
    RNNFAST_INLINE const T* operator()(int64_t k) const {
      const Sequence& seq = g.seq_;
      const int64_t row = g.first_row_ + k;
      if (!seq.offsets) {
        t = row / seq.B;
      } else {
        while (seq.first_row(t) > row) --t;
        while (seq.first_row(t + 1) <= row) ++t;
      }
      const int64_t b = row - seq.first_row(t);
      const bool reverse = g.d_ == 1 || g.in_.reversed;
      if (b < seq.active_before(t, reverse))
        return g.args_.y + (seq.first_row(reverse ? t + 1 : t - 1) + b) * g.y_stride_ + g.d_ * g.P_;
      return g.in_.h0 ? g.in_.h0 + (g.d_ * seq.B + b) * g.P_ : g.zeros_;
    }
  };

  // grad[row of W, columns] (+)= (packed columns of delta)^T rows.
  template <class Rows>
  void weight_product(const Rows& rows, int64_t columns, Range run, int64_t row, int64_t k, int64_t depth, T* grad,
                      bool accumulate) {
    if (!grad) return;
    const TransposedA<T> a{a_, run.begin, depth};
    T* out = grad + (row - run.begin) * columns;
    for_panels<T>({0, vectors_of<T>(columns)}, columns, [&](auto nv, const Panel& panel) {
      pack_plain_panel<T>(rows, k, k + depth, panel, b_);
      product(nv, a, run, 0, depth, b_, panel, out, columns, accumulate);
    });
  }

  void bias_gradients(const GradientChunk<T>& chunk, int64_t k, int64_t depth, bool accumulate) {
    T* const b_ih = args_.grad_b_ih[d_];
    T* const b_hh = args_.grad_b_hh[d_];
    if (!b_ih && !b_hh) return;
    // Each thread takes its share of every block, so that the same thread writes the same biases at every call.
    const Range units = split_range(H_, index_, count_);
    for (int block = 0; block < kBlocks; ++block) {
      const int recurrent = block - Cell::kDeltaRecurrent;
      T* const to_ih = b_ih && block < G ? b_ih + (block + Cell::kFirstGate) % G * H_ : nullptr;
      T* const to_hh = b_hh && recurrent >= 0 && recurrent < G ? b_hh + recurrent * H_ : nullptr;
      if (to_ih || to_hh)
        sum_columns(chunk.delta + k * delta_stride() + block * H_, units, depth, to_ih, to_hh, accumulate);
    }
  }

  // A block of rows is summed first, then added to the blocks before: the rounding error grows with neither alone.
  // Several vectors of a row at once: rows lie far apart, beyond what the prefetchers follow.
  void sum_columns(const T* from, Range units, int64_t depth, T* first, T* second, bool accumulate) {
    constexpr int kAtOnce = 8;
    for (int64_t j = units.begin; j < units.end; j += kAtOnce * N) {
      const int64_t columns = units.end - j < kAtOnce * N ? units.end - j : kAtOnce * N;
      V sum[kAtOnce] = {};
      for (int64_t row = 0; row < depth; ++row) {
        const T* values = from + row * delta_stride() + j;
        if (columns == kAtOnce * N) {
#pragma GCC unroll 8
          for (int v = 0; v < kAtOnce; ++v) sum[v] = sum[v] + load<V>(values + v * N);
        } else {
          for (int v = 0; v * N < columns; ++v)
            sum[v] = sum[v] + load_first<V>(values + v * N, int(columns - v * N < N ? columns - v * N : N));
        }
      }
      for (int v = 0; v * N < columns; ++v) {
        const int valid = int(columns - v * N < N ? columns - v * N : N);
        T* const grads[] = {first, second};
        for (T* grad : grads) {
          if (!grad) continue;
          T* to = grad + j + v * N;
          store_first(to, accumulate ? load_first<V>(to, valid) + sum[v] : sum[v], valid);
        }
      }
    }
  }

  const LayerBackward<T>& args_;
  const LayerInputs<T>& in_;
  const Sequence& seq_;
  int d_, index_, count_;
  int64_t H_, I_, P_, y_stride_, block_k_;
  T* grad_x_;
  bool add_;
  T *a_, *b_;  // this thread's buffers: delta^T and one panel
  const T* zeros_;
  int64_t first_row_ = 0, rows_ = 0;  // of the chunk at work
};

}  // namespace RNNFAST_NAMESPACE
