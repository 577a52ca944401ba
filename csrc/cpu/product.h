// SPDX-License-Identifier: Apache-2.0
// Matrix products over many rows on the micro-kernel, and the packing of their left operand.
#pragma once

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

template <class T, int NV, class ARows>
void product(Constant<NV>, const ARows& a, Range rows, int64_t k, int64_t depth, const T* weights,
             const Panel& panel, T* c, int64_t c_stride, bool accumulate) {
  ProductBlock<T, NV, ARows> block{a, k, depth, weights, panel, c, c_stride, accumulate};
  for_row_blocks(rows.begin, rows.end, block);
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

// A block of A^T, a few rows at a time: rows of delta lie kDelta*H elements apart, often a multiple of the cache's
// way size, so that more of them at once would evict one another.
template <class T>
void pack_transposed(const T* from, int64_t stride, int64_t depth, Range columns, T* to) {
  constexpr int64_t kRowsAtOnce = 8;
  for (int64_t k = 0; k < depth; k += kRowsAtOnce) {
    TransposeBlock<T> block{
        from, stride, depth, columns.begin, to, k, k + kRowsAtOnce < depth ? k + kRowsAtOnce : depth};
    for_row_blocks(columns.begin, columns.end, block);
  }
}

}  // namespace RNNFAST_NAMESPACE
