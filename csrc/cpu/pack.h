// SPDX-License-Identifier: Apache-2.0
// Copies matrices into panels [K][vectors][lanes], so that the micro-kernel reads them front to back. Columns
// beyond the matrix are zero.
#pragma once

#include "cpu/tile.h"

namespace RNNFAST_NAMESPACE {

// A gate panel: units [unit, unit + valid) of every gate of weights [G*H, K], K contiguous.
template <class T>
void pack_gate_panel(const T* weights, int gates, int64_t H, int64_t K, int64_t unit, int valid, T* panel) {
  using V = TargetVec<T>;
  constexpr int N = V::kLanes;
  const int64_t stride = int64_t(gates) * N;
  for (int g = 0; g < gates; ++g) {
    const T* first = weights + (g * H + unit) * K;
    T* out = panel + g * N;
    int64_t k = 0;
    for (; k + N <= K; k += N) {
      V block[N];
#pragma GCC unroll 16
      for (int l = 0; l < N; ++l) block[l] = l < valid ? load<V>(first + l * K + k) : splat<V>(T(0));
      transpose(block);
#pragma GCC unroll 16
      for (int l = 0; l < N; ++l) store(out + (k + l) * stride, block[l]);
    }
    for (; k < K; ++k)
      for (int l = 0; l < N; ++l) out[k * stride + l] = l < valid ? first[l * K + k] : T(0);
  }
}

// Calls f(constant U, first vector) for groups of `most` vectors, then 2 and 1; backwards if asked.
template <int kMost, class F>
RNNFAST_INLINE void for_groups(Range vectors, bool backwards, F f) {
  if constexpr (kMost == 1) {
    for (int64_t i = 0; i < vectors.size(); ++i)
      f(Constant<1>{}, backwards ? vectors.end - 1 - i : vectors.begin + i);
  } else {
    const int64_t full = vectors.size() / kMost, left = vectors.size() % kMost;
    const int64_t tail = vectors.begin + full * kMost;
    const auto rest = [&] {
      if (left & 2) f(Constant<2>{}, tail);
      if (left & 1) f(Constant<1>{}, tail + (left & 2));
    };
    if (backwards) rest();
    for (int64_t i = 0; i < full; ++i) f(Constant<kMost>{}, vectors.begin + kMost * (backwards ? full - 1 - i : i));
    if (!backwards) rest();
  }
}

// Columns of matrices with N contiguous are taken in panels of 4, 2 and 1 vectors. Panels of one matrix lie one
// behind another: the panel that begins at vector v is at offset v * lanes * K.
template <class T>
RNNFAST_INLINE Panel plain_panel(int64_t vector, int64_t vector_end, int64_t columns) {
  constexpr int64_t N = kLanes<T>;
  Panel panel;
  const int64_t left = vector_end - vector;
  panel.vectors = left >= 4 ? 4 : left >= 2 ? 2 : 1;
  panel.column = vector * N;
  const int64_t valid = columns - (vector + panel.vectors - 1) * N;
  panel.last_valid = int(valid < N ? valid : N);
  return panel;
}

// Calls f(constant vectors, panel) for the panels of some vectors of columns.
template <class T, class F>
RNNFAST_INLINE void for_panels(Range vectors, int64_t columns, F f) {
  for (int64_t v = vectors.begin; v < vectors.end;) {
    const Panel panel = plain_panel<T>(v, vectors.end, columns);
    if (panel.vectors == 4) {
      f(Constant<4>{}, panel);
    } else if (panel.vectors == 2) {
      f(Constant<2>{}, panel);
    } else {
      f(Constant<1>{}, panel);
    }
    v += panel.vectors;
  }
}

template <class T>
RNNFAST_INLINE int64_t vectors_of(int64_t columns) {
  return (columns + kLanes<T> - 1) / kLanes<T>;
}

// Rows [k_begin, k_end) of a plain panel; rows(k) gives the matrix's row k.
template <class T, class Rows>
void pack_plain_panel(const Rows& rows, int64_t k_begin, int64_t k_end, const Panel& p, T* panel) {
  using V = TargetVec<T>;
  constexpr int N = V::kLanes;
  for (int64_t k = k_begin; k < k_end; ++k) {
    const T* from = rows(k) + p.column;
    T* to = panel + (k - k_begin) * p.vectors * N;
    for (int v = 0; v + 1 < p.vectors; ++v) store(to + v * N, load<V>(from + v * N));
    const int last = (p.vectors - 1) * N;
    store(to + last, load_first<V>(from + last, p.last_valid));
  }
}

// Matrix with contiguous rows.
template <class T>
struct DenseRows {
  const T* data;
  int64_t stride;
  RNNFAST_INLINE const T* operator()(int64_t row) const { return data + row * stride; }
};

}  // namespace RNNFAST_NAMESPACE
