// SPDX-License-Identifier: Apache-2.0
// One time step of a layer on packed weights: [x, h] against [W_ih, W_hh] in one pass over the accumulators, so
// that no projected input is written and read again. For streaming, where a call is one step.
#pragma once

#include "cells/all.h"
#include "cpu/group.h"
#include "cpu/job.h"
#include "cpu/pack.h"
#include "cpu/tile.h"

namespace RNNFAST_NAMESPACE {

// One thread's share of the hidden units. The job: dense, one direction, T = 1, packed weights. y must not be h0:
// other threads still read h0. h_n is left alone, so that it may be h0; the caller copies y there after a barrier.
template <class Cell, class T>
class Step {
  using V = TargetVec<T>;
  static constexpr int N = V::kLanes;
  static constexpr int G = Cell::kGates;
  // Vectors of units whose pointwise part runs at once: its chain of some 150 cycles is latency, not work.
  static constexpr int kVectors = G == 1 ? 4 : 2;
  static constexpr int kWide = kVectors * N;
  static constexpr int kTogether = G == 1 ? kVectors : 1;  // vectors of units in a tile
  using W = Group<V, kVectors>;

 public:
  Step(const ForwardJob<T>& job, int index, int count)
      : cell_(job.args->in.variant),
        args_(*job.args),
        in_(job.args->in),
        space_(*job.space),
        barrier_(*job.all),
        index_(index),
        count_(count),
        B_(in_.sequence.B),
        H_(in_.H),
        P_(in_.P),
        out_(in_.projection ? job.workspace + space_.cell_output : args_.y) {}

  void run() {
    const Range units = split_range(vectors_of<T>(H_), index_, count_);
    for (int64_t v = units.begin; v < units.end; v += kVectors) {
      Block block{*this, v, int(units.end - v < kVectors ? units.end - v : kVectors)};
      for_row_blocks<kRowsOf<kTogether * G>>(0, B_, block);
    }
    if (!in_.projection) return;
    barrier_.wait(count_);
    const Range outputs = split_range(vectors_of<T>(P_), index_, count_);
    for_panels<T>(outputs, P_, [&](auto vectors, const Panel& panel) {
      OutputBlock<vectors.value> block{*this, panel};
      for_row_blocks(0, B_, block);
    });
  }

 private:
  // A tile of rows x kVectors vectors of units. Its pre-activations meet in a small buffer, unit by unit in a row.
  struct Block {
    Step& s;
    int64_t vector;
    int vectors;

    template <int R>
    RNNFAST_INLINE void rows(int64_t first) {
      alignas(64) T a[R][G][kWide], x[R][G][kWide];
      if (vectors < kVectors) clear(a), clear(x);
      if (kTogether > 1 && vectors == kVectors) {
        s.pre_activations<R, kTogether>(first, vector, 0, a, x);
      } else {
        for (int u = 0; u < vectors; ++u) s.pre_activations<R, 1>(first, vector, u, a, x);
      }
      // The units that follow may be another thread's.
      const int64_t unit = vector * N, left = s.H_ - unit, own = vectors * N;
      const int valid = int(left < own ? left : own);
#pragma GCC unroll 1
      for (int r = 0; r < R; ++r) s.finish(a[r], x[r], first + r, unit, valid);
    }

    template <int R>
    static RNNFAST_INLINE void clear(T (&values)[R][G][kWide]) {
      for (int r = 0; r < R; ++r)
        for (int g = 0; g < G; ++g)
          for (int u = 0; u < kVectors; ++u) store(&values[r][g][u * N], splat<V>(T(0)));
    }
  };

  // Of U vectors of units beginning `u` vectors after `vector`. Of the cell's `apart` gates the input's share goes
  // to x.
  template <int R, int U>
  RNNFAST_INLINE void pre_activations(int64_t first, int64_t vector, int u, T (&a)[R][G][kWide],
                                      T (&x)[R][G][kWide]) {
    static_assert(U == 1 || G == 1);
    const int64_t v = vector + u, I = in_.I;
    const T* bias = args_.packed + space_.packed.bias + v * 2 * G * N;
    Tile<T, R, U * G> tile;
    RowPointers<T, R> input, hidden;
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      input.row[r] = in_.x + (first + r) * in_.x_row;
      hidden.row[r] = in_.h0 + (in_.h0 ? (first + r) * P_ : 0);
#pragma GCC unroll 4
      for (int i = 0; i < U; ++i)
#pragma GCC unroll 4
        for (int g = 0; g < G; ++g) tile.acc[r][i * G + g] = load<V>(bias + (i * 2 * G + g) * N);
    }
    multiply_panel<U>(tile, input, args_.packed + space_.packed.ih + v * I * G * N, I);
#pragma GCC unroll 4
    for (int g = 0; g < G; ++g) {
      if (!Cell::kApart[g]) continue;
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        store(&x[r][g][u * N], tile.acc[r][g]);
        tile.acc[r][g] = load<V>(bias + (G + g) * N);
      }
    }
    if (in_.h0) multiply_panel<U>(tile, hidden, args_.packed + space_.packed.hh + v * P_ * G * N, P_);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
      for (int i = 0; i < U; ++i)
#pragma GCC unroll 4
        for (int g = 0; g < G; ++g) store(&a[r][g][(u + i) * N], tile.acc[r][i * G + g]);
  }

  template <int U, class Tile, class Rows>
  RNNFAST_INLINE void multiply_panel(Tile& tile, const Rows& rows, const T* panel, int64_t K) {
    if constexpr (G == 1) {
      multiply(tile, rows, panel, N, K, K * N);
    } else {
      multiply(tile, rows, panel, G * N, K);
    }
  }

  RNNFAST_INLINE void finish(const T (&pre)[G][kWide], const T (&apart)[G][kWide], int64_t b, int64_t unit,
                             int valid) {
    W a[G], x[G], h_prev = splat<W>(T(0)), c_prev = h_prev;
#pragma GCC unroll 4
    for (int g = 0; g < G; ++g) {
      a[g] = InMemory<W>::load(pre[g], kWide);
      x[g] = Cell::kApart[g] ? InMemory<W>::load(apart[g], kWide) : a[g];
    }
    if (Cell::kForwardSeesHidden && in_.h0) h_prev = InMemory<W>::load(in_.h0 + b * P_ + unit, valid);
    if (Cell::kHasCell && in_.c0) c_prev = InMemory<W>::load(in_.c0 + b * H_ + unit, valid);
    const auto out = cell_.forward(a, x, h_prev, c_prev);
    if constexpr (Cell::kHasCell) InMemory<W>::store(args_.c_n + b * H_ + unit, out.c, valid);
    InMemory<W>::store(out_ + b * H_ + unit, out.h, valid);
  }

  // h = W_hr (cell's output), NV vectors of columns.
  template <int NV>
  struct OutputBlock {
    Step& s;
    const Panel& panel;

    template <int R>
    RNNFAST_INLINE void rows(int64_t first) {
      RowPointers<T, R> a;
      Tile<T, R, NV> tile;
      tile.clear();
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) a.row[r] = s.out_ + (first + r) * s.H_;
      multiply(tile, a, s.args_.packed + s.space_.packed.hr + panel.column * s.H_, N, s.H_, s.H_ * N);
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
        for (int v = 0; v < NV; ++v)
          store_first(s.args_.y + (first + r) * s.P_ + panel.column + v * N, tile.acc[r][v],
                      v == NV - 1 ? panel.last_valid : N);
    }
  };

  const Cell cell_;
  const LayerForward<T>& args_;
  const LayerInputs<T>& in_;
  const ForwardSpace& space_;
  Barrier& barrier_;
  int index_, count_;
  int64_t B_, H_, P_;
  T* out_;  // [B, H] of the cell's output
};

template <class Cell, class T>
void layer_step(const ForwardJob<T>& job, int index, int count) {
  Step<Cell, T>(job, index, count).run();
}

}  // namespace RNNFAST_NAMESPACE
