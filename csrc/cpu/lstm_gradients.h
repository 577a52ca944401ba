// SPDX-License-Identifier: Apache-2.0
// The backward pass's products over all N rows, once delta stands:
//   dx = delta W_ih (summed over directions)       dW_ih = delta^T x      dW_hh = delta^T h_prev     db = sum of
//   delta
// dx is shared out by rows; the weight gradients by rows of W (gate units), so every thread owns what it writes and
// the sums have one fixed order.
#pragma once

#include "cells/lstm.h"
#include "cpu/lstm_job.h"
#include "cpu/pack.h"

namespace RNNFAST_NAMESPACE {

// C[rows, panel] (+)= A[rows, k .. k + depth] * packed panel.
template <class T, int NV, class ARows>
struct ProductBlock {
  using V = TargetVec<T>;
  const ARows& a;
  int64_t k, depth;
  const T* weights;
  Panel panel;
  T* c;
  int64_t c_stride;
  bool accumulate;

  template <int R>
  RNNFAST_INLINE void rows(int64_t first) {
    const auto operand = a.template block<R>(first, k);
    Tile<T, R, NV> tile;
    tile.clear();
    multiply(tile, operand, weights, NV * V::kLanes, depth);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      T* out = c + (first + r) * c_stride + panel.column;
#pragma GCC unroll 4
      for (int v = 0; v < NV; ++v) {
        const int valid = v == NV - 1 ? panel.last_valid : V::kLanes;
        if (accumulate) tile.acc[r][v] = tile.acc[r][v] + load_first<V>(out + v * V::kLanes, valid);
        store_first(out + v * V::kLanes, tile.acc[r][v], valid);
      }
    }
  }
};

template <class T, class ARows>
void product(const ARows& a, Range rows, int64_t k, int64_t depth, const T* weights, const Panel& panel, T* c,
             int64_t c_stride, bool accumulate) {
  if (panel.vectors == 4) {
    ProductBlock<T, 4, ARows> block{a, k, depth, weights, panel, c, c_stride, accumulate};
    for_row_blocks(rows.begin, rows.end, block);
  } else if (panel.vectors == 2) {
    ProductBlock<T, 2, ARows> block{a, k, depth, weights, panel, c, c_stride, accumulate};
    for_row_blocks(rows.begin, rows.end, block);
  } else {
    ProductBlock<T, 1, ARows> block{a, k, depth, weights, panel, c, c_stride, accumulate};
    for_row_blocks(rows.begin, rows.end, block);
  }
}

// A with contiguous rows.
template <class T>
struct RowMajorA {
  const T* data;
  int64_t stride;
  template <int R>
  RNNFAST_INLINE RowPointers<T, R> block(int64_t first, int64_t k) const {
    RowPointers<T, R> result;
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) result.row[r] = data + (first + r) * stride + k;
    return result;
  }
};

// A^T packed by pack_transposed: the block of R rows at `first` begins at (first - begin) * depth.
template <class T>
struct TransposedA {
  const T* data;
  int64_t begin, depth;
  template <int R>
  RNNFAST_INLINE PackedColumns<T, R> block(int64_t first, int64_t) const {
    return {data + (first - begin) * depth};
  }
};

// Copies R columns of rows [k, k_end) of a row-major matrix to [depth][R].
template <class T>
struct TransposeBlock {
  const T* from;  // first row, column 0
  int64_t stride, depth, begin;
  T* to;
  int64_t k, k_end;
  template <int R>
  RNNFAST_INLINE void rows(int64_t first) {
    const T* source = from + first;
    T* out = to + (first - begin) * depth;
    for (int64_t i = k; i < k_end; ++i) __builtin_memcpy(out + i * R, source + i * stride, R * sizeof(T));
  }
};

// A block of A^T, a few rows at a time: rows of delta lie 4H elements apart, often a multiple of the cache's way
// size, so that more of them at once would evict one another.
template <class T>
void pack_transposed(const T* from, int64_t stride, int64_t depth, Range columns, T* to) {
  constexpr int64_t kRowsAtOnce = 8;
  for (int64_t k = 0; k < depth; k += kRowsAtOnce) {
    TransposeBlock<T> block{
        from, stride, depth, columns.begin, to, k, k + kRowsAtOnce < depth ? k + kRowsAtOnce : depth};
    for_row_blocks(columns.begin, columns.end, block);
  }
}

template <class T>
class LstmGradients {
  using V = TargetVec<T>;
  static constexpr int N = V::kLanes;
  static constexpr int G = LstmCell::kGates;

 public:
  LstmGradients(const LstmBackwardJob<T>& job, int index, int count)
      : job_(job),
        args_(*job.args),
        in_(job.args->in),
        seq_(job.args->in.sequence),
        index_(index),
        count_(count),
        H_(in_.H),
        I_(in_.I),
        block_k_(job.plan->block_k) {
    // Where the runtime gave fewer threads than planned, each has a larger share of the same space.
    const int64_t space = job.plan->threads * (job.space->thread_a + job.space->thread_b) / count / 16 * 16;
    a_ = job.workspace + job.space->threads + index * space;
    b_ = a_ + space - job.space->thread_b;
  }

  // W_ih in plain panels for dx, shared out by vectors in fours so that panels agree with run().
  void pack() {
    if (!args_.grad_x) return;
    for (int d = 0; d < in_.directions; ++d) {
      const DenseRows<T> w{in_.weights[d].w_ih, I_};
      int64_t turn = 0;
      for (int64_t v = 0, end = vectors_of<T>(I_); v < end; ++turn) {
        const Panel panel = plain_panel<T>(v, end, I_);
        if (turn % count_ == index_) pack_plain_panel<T>(w, 0, G * H_, panel, packed_ih(d) + v * N * G * H_);
        v += panel.vectors;
      }
    }
  }

  void run() {
    if (args_.grad_x) input_gradient();
    for (int d = 0; d < in_.directions; ++d) weight_gradients(d);
  }

 private:
  T* direction_space(int d) const { return job_.workspace + d * job_.space->direction_size; }
  T* packed_ih(int d) const { return direction_space(d) + job_.space->packed_ih; }
  const T* delta(int d) const { return direction_space(d) + job_.space->delta; }

  void input_gradient() {
    const Range rows = split_range(seq_.rows(), index_, count_);
    for (int d = 0; d < in_.directions; ++d) {
      const RowMajorA<T> a{delta(d), G * H_};
      for (int64_t v = 0, end = vectors_of<T>(I_); v < end;) {
        const Panel panel = plain_panel<T>(v, end, I_);
        for (int64_t k = 0; k < G * H_; k += block_k_) {
          const int64_t depth = G * H_ - k < block_k_ ? G * H_ - k : block_k_;
          const T* weights = packed_ih(d) + v * N * G * H_ + k * panel.vectors * N;
          product(a, rows, k, depth, weights, panel, args_.grad_x, I_, d > 0 || k > 0);
        }
        v += panel.vectors;
      }
    }
  }

  // Rows of x and of h_prev by global row number.
  struct XRows {
    const LstmInputs<T>& in;
    RNNFAST_INLINE const T* operator()(int64_t row) const {
      if (in.sequence.offsets) return in.x + row * in.x_row;
      return in.x + row / in.sequence.B * in.x_step + row % in.sequence.B * in.x_row;
    }
  };

  struct HiddenRows {
    const LstmGradients& g;
    int d;
    mutable int64_t t = 0;
    RNNFAST_INLINE const T* operator()(int64_t row) const {
      const Sequence& seq = g.seq_;
      while (seq.first_row(t) > row) --t;
      while (seq.first_row(t + 1) <= row) ++t;
      const int64_t b = row - seq.first_row(t);
      if (b < seq.active_before(t, d == 1))
        return g.args_.y + (seq.first_row(d == 1 ? t + 1 : t - 1) + b) * g.in_.directions * g.H_ + d * g.H_;
      return g.in_.h0 ? g.in_.h0 + (d * seq.B + b) * g.H_ : g.job_.workspace + g.job_.space->zeros;
    }
  };

  template <class Rows>
  void weight_product(const Rows& rows, int64_t columns, Range share, int64_t k, int64_t depth, T* grad) {
    if (!grad) return;
    const TransposedA<T> a{a_, share.begin, depth};
    for (int64_t v = 0, end = vectors_of<T>(columns); v < end;) {
      const Panel panel = plain_panel<T>(v, end, columns);
      pack_plain_panel<T>(rows, k, k + depth, panel, b_);
      product(a, share, 0, depth, b_, panel, grad, columns, k > 0);
      v += panel.vectors;
    }
  }

  void weight_gradients(int d) {
    const Range share = split_range(G * H_, index_, count_);
    const int64_t rows = seq_.rows();
    const bool weights = args_.grad_w_ih[d] || args_.grad_w_hh[d];
    for (int64_t k = 0; k < rows; k += block_k_) {
      const int64_t depth = rows - k < block_k_ ? rows - k : block_k_;
      if (args_.grad_b[d]) bias_gradient(d, share, k, depth);
      if (!weights) continue;
      pack_transposed(delta(d) + k * G * H_, G * H_, depth, share, a_);
      weight_product(XRows{in_}, I_, share, k, depth, args_.grad_w_ih[d]);
      weight_product(HiddenRows{*this, d}, H_, share, k, depth, args_.grad_w_hh[d]);
    }
  }

  // A block of rows is summed first, then added to the blocks before: the rounding error grows with neither alone.
  // Several vectors of a row at once: rows lie 4H elements apart, beyond what the prefetchers follow.
  void bias_gradient(int d, Range share, int64_t k, int64_t depth) {
    constexpr int kAtOnce = 8;
    for (int64_t j = share.begin; j < share.end; j += kAtOnce * N) {
      const int64_t columns = share.end - j < kAtOnce * N ? share.end - j : kAtOnce * N;
      V sum[kAtOnce] = {};
      for (int64_t row = k; row < k + depth; ++row) {
        const T* from = delta(d) + row * G * H_ + j;
        if (columns == kAtOnce * N) {
#pragma GCC unroll 8
          for (int v = 0; v < kAtOnce; ++v) sum[v] = sum[v] + load<V>(from + v * N);
        } else {
          for (int v = 0; v * N < columns; ++v)
            sum[v] = sum[v] + load_first<V>(from + v * N, int(columns - v * N < N ? columns - v * N : N));
        }
      }
      for (int v = 0; v * N < columns; ++v) {
        const int valid = int(columns - v * N < N ? columns - v * N : N);
        T* grad = args_.grad_b[d] + j + v * N;
        store_first(grad, k == 0 ? sum[v] : load_first<V>(grad, valid) + sum[v], valid);
      }
    }
  }

  const LstmBackwardJob<T>& job_;
  const LstmBackward<T>& args_;
  const LstmInputs<T>& in_;
  const Sequence& seq_;
  int index_, count_;
  int64_t H_, I_, block_k_;
  T *a_, *b_;  // this thread's buffers: delta^T and one panel
};

}  // namespace RNNFAST_NAMESPACE
