// SPDX-License-Identifier: Apache-2.0
// One step on torch's own row-major weights, for a handful of rows: nothing is packed, since reading the weights
// once is all the work there is. Each pre-activation is a dot product along K.
#pragma once

#include "core/params.h"
#include "cpu/tile.h"

namespace RNNFAST_NAMESPACE {

// sum[r][c] += w[c] . a[r], by lanes.
template <class T, int R, int C>
RNNFAST_INLINE void dot(const T* const (&w)[C], int64_t K, const T* const (&a)[R], TargetVec<T> (&sum)[R][C]) {
  using V = TargetVec<T>;
  constexpr int N = V::kLanes;
  int64_t k = 0;
  for (; k + N <= K; k += N) {
    V x[R];
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) x[r] = load<V>(a[r] + k);
#pragma GCC unroll 8
    for (int c = 0; c < C; ++c) {
      const V row = load<V>(w[c] + k);
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r) sum[r][c] = fma(row, x[r], sum[r][c]);
    }
  }
  if (k == K) return;
  const int left = int(K - k);
  for (int r = 0; r < R; ++r)
    for (int c = 0; c < C; ++c)
      sum[r][c] = fma(load_first<V>(w[c] + k, left), load_first<V>(a[r] + k, left), sum[r][c]);
}

// R samples from `first` on, all units of the scan's share.
template <class Cell, class T, int R, class Scan>
void direct_rows(Scan& scan, int64_t t, int64_t first) {
  using V = TargetVec<T>;
  constexpr int N = V::kLanes, G = Cell::kGates;
  // Units at a time, so that cells of few gates too keep several sums in flight.
  constexpr int L = G >= 3 ? 1 : N < 4 ? N : 4;
  const LayerInputs<T>& in = scan.inputs();
  const LayerWeights<T>& w = scan.weights();
  const T *x[R], *h[R];
  for (int r = 0; r < R; ++r) {
    x[r] = in.x_at(t, first + r);
    h[r] = scan.previous_hidden(first + r);
  }
  for (int64_t vector = scan.units().begin; vector < scan.units().end; ++vector) {
    const int64_t unit = vector * N;
    const int valid = scan.valid_lanes(unit);
    alignas(64) T recurrent[R][G][N] = {}, input[R][G][N] = {};
    for (int l = 0; l < valid; l += L) {
      const T *w_ih[L * G], *w_hh[L * G];
      for (int i = 0; i < L; ++i)
        for (int g = 0; g < G; ++g) {
          const int64_t row = g * in.H + unit + (l + i < valid ? l + i : valid - 1);
          w_ih[i * G + g] = w.w_ih + row * in.I;
          w_hh[i * G + g] = w.w_hh + row * in.P;
        }
      V sum_x[R][L * G] = {}, sum_h[R][L * G] = {};
      dot<T, R, L * G>(w_ih, in.I, x, sum_x);
      dot<T, R, L * G>(w_hh, in.P, h, sum_h);
      for (int i = 0; i < L && l + i < valid; ++i)
        for (int g = 0; g < G; ++g) {
          const int64_t row = g * in.H + unit + l + i;
          const T b_ih = w.b_ih ? w.b_ih[row] : T(0), b_hh = w.b_hh ? w.b_hh[row] : T(0);
          for (int r = 0; r < R; ++r) {
            const V x_part = sum_x[r][i * G + g], h_part = sum_h[r][i * G + g];
            if (Cell::kApart[g]) {
              input[r][g][l + i] = sum_lanes(x_part) + b_ih;
              recurrent[r][g][l + i] = sum_lanes(h_part) + b_hh;
            } else {
              recurrent[r][g][l + i] = sum_lanes(x_part + h_part) + (b_ih + b_hh);
            }
          }
        }
    }
    for (int r = 0; r < R; ++r) {
      V a[G], x_part[G];
      for (int g = 0; g < G; ++g) {
        a[g] = load<V>(recurrent[r][g]);
        x_part[g] = load<V>(input[r][g]);
      }
      scan.finish(a, x_part, first + r, unit, valid);
    }
  }
}

template <class Cell, class T, class Scan>
void direct_step(Scan& scan, int64_t t, int64_t rows) {
  int64_t b = 0;
  for (; b + 2 <= rows; b += 2) direct_rows<Cell, T, 2>(scan, t, b);
  if (b < rows) direct_rows<Cell, T, 1>(scan, t, b);
}

}  // namespace RNNFAST_NAMESPACE
