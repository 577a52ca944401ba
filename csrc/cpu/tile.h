// SPDX-License-Identifier: Apache-2.0
// The micro-kernel: a tile of R rows x NV vectors of accumulators, held in registers over the whole K loop.
// Everything that multiplies matrices here (scans, projection, gradients) is this tile with another epilogue.
#pragma once

#include "cpu/simd.h"

namespace RNNFAST_NAMESPACE {

using namespace rnnfast;  // the shared plain data: params, plan, jobs

// Rows of a full tile of 4 vectors, which must leave registers for one row of the panel and the broadcasts; and the
// most rows of any tile.
#if RNNFAST_VECTOR_BYTES == 64 || defined(__aarch64__)
constexpr int kTileRows = 6;  // 24 of 32 registers
constexpr int kAccumulators = 24;
constexpr int kMostRows = 8;
#else
constexpr int kTileRows = 3;  // 12 of 16 registers
constexpr int kAccumulators = 12;
constexpr int kMostRows = 4;
#endif

// Rows of a full tile of NV vectors.
template <int NV>
constexpr int kRowsOf = kAccumulators / NV < kMostRows ? kAccumulators / NV : kMostRows;

template <class T>
using TargetVec = Vec<T, RNNFAST_VECTOR_BYTES / int(sizeof(T))>;

template <class T>
constexpr int kLanes = TargetVec<T>::kLanes;

// A number known to the compiler, for functions that are given one.
template <int kValue>
struct Constant {
  static constexpr int value = kValue;
};

template <class T, int R, int NV>
struct Tile {
  TargetVec<T> acc[R][NV];

  RNNFAST_INLINE void clear() {
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
      for (int v = 0; v < NV; ++v) acc[r][v] = splat<TargetVec<T>>(T(0));
  }
};

// A operand with K contiguous: one pointer a row.
template <class T, int R>
struct RowPointers {
  const T* row[R];
  RNNFAST_INLINE T at(int r, int64_t k) const { return row[r][k]; }
};

// A operand packed as [K][R].
template <class T, int R>
struct PackedColumns {
  const T* data;
  RNNFAST_INLINE T at(int r, int64_t k) const { return data[k * R + r]; }
};

// One k: tile += a[:, k] * panel[k, :]. The tile's vectors lie `vector_stride` apart.
template <class T, int R, int NV, class A>
RNNFAST_INLINE void multiply_step(Tile<T, R, NV>& tile, const A& a, const T* panel_row, int64_t vector_stride,
                                  int64_t k) {
  using V = TargetVec<T>;
  // The shorter side is held, the longer streams past it: of 16 registers 12 are accumulators, and with 3 rows x 4
  // vectors only 3 broadcasts and 1 vector fit beside them.
  if constexpr (R < NV) {
    V scale[R];
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) scale[r] = splat<V>(a.at(r, k));
#pragma GCC unroll 4
    for (int v = 0; v < NV; ++v) {
      const V b = load<V>(panel_row + v * vector_stride);
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) tile.acc[r][v] = fma(scale[r], b, tile.acc[r][v]);
    }
  } else {
    V b[NV];
#pragma GCC unroll 4
    for (int v = 0; v < NV; ++v) b[v] = load<V>(panel_row + v * vector_stride);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const V scale = splat<V>(a.at(r, k));
#pragma GCC unroll 4
      for (int v = 0; v < NV; ++v) tile.acc[r][v] = fma(scale, b[v], tile.acc[r][v]);
    }
  }
}

// tile += A[R, K] * panel[K, NV * lanes]; `panel` rows lie `stride` elements apart, the vectors of a row
// `vector_stride`.
// Few accumulators cannot hide the latency of an FMA (two a cycle, four cycles deep): then K is cut into several
// chains of their own, summed at the end.
template <class T, int R, int NV, class A>
RNNFAST_INLINE void multiply(Tile<T, R, NV>& tile, const A& a, const T* panel, int64_t stride, int64_t K,
                             int64_t vector_stride = kLanes<T>) {
  constexpr int kFill = kAccumulators / (R * NV);
  constexpr int kChains = kFill >= 4 ? 4 : kFill >= 2 ? 2 : 1;
  if constexpr (kChains == 1) {
#pragma GCC unroll 2
    for (int64_t k = 0; k < K; ++k) multiply_step(tile, a, panel + k * stride, vector_stride, k);
  } else {
    Tile<T, R, NV> chain[kChains - 1];
#pragma GCC unroll 4
    for (int c = 0; c < kChains - 1; ++c) chain[c].clear();
    int64_t k = 0;
    for (; k + kChains <= K; k += kChains) {
      multiply_step(tile, a, panel + k * stride, vector_stride, k);
#pragma GCC unroll 4
      for (int c = 1; c < kChains; ++c)
        multiply_step(chain[c - 1], a, panel + (k + c) * stride, vector_stride, k + c);
    }
    for (; k < K; ++k) multiply_step(tile, a, panel + k * stride, vector_stride, k);
#pragma GCC unroll 4
    for (int c = 0; c < kChains - 1; ++c)
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
        for (int v = 0; v < NV; ++v) tile.acc[r][v] = tile.acc[r][v] + chain[c].acc[r][v];
  }
}

// The same as a function of its own, for tiles of several rows: with 16 registers all in use, an epilogue inlined
// behind the loop has been seen to push an accumulator into memory over the whole of it, at half the speed. Passing
// the tile costs little beside its loop; with one row it would not.
template <class T, int R, int NV, class A>
__attribute__((noinline)) void multiply_called(Tile<T, R, NV>& tile, const A a, const T* panel, int64_t stride,
                                               int64_t K, int64_t vector_stride) {
  Tile<T, R, NV> sum = tile;
  multiply(sum, a, panel, stride, K, vector_stride);
  tile = sum;
}

template <class T, int R, int NV, class A>
RNNFAST_INLINE void multiply_apart(Tile<T, R, NV>& tile, const A& a, const T* panel, int64_t stride, int64_t K,
                                   int64_t vector_stride) {
  if constexpr (R > 1) {
    multiply_called(tile, a, panel, stride, K, vector_stride);
  } else {
    multiply(tile, a, panel, stride, K, vector_stride);
  }
}

// Calls f.template rows<R>(first) over [begin, end) in blocks of at most kMost rows, as equal as possible, so that
// 7 rows are 4 + 3 and not 6 + 1.
template <int kMost, class F>
RNNFAST_INLINE void call_rows(int64_t n, int64_t first, F& f) {
  if constexpr (kMost > 0) {
    if (n == kMost) return f.template rows<kMost>(first);
    call_rows<kMost - 1>(n, first, f);
  }
}

template <int kMost = kTileRows, class F>
RNNFAST_INLINE void for_row_blocks(int64_t begin, int64_t end, F& f) {
  const int64_t n = end - begin;
  if (n <= 0) return;
  const int64_t blocks = (n + kMost - 1) / kMost;
  for (int64_t i = 0; i < blocks; ++i) {
    const int64_t first = begin + n * i / blocks;
    call_rows<kMost>(begin + n * (i + 1) / blocks - first, first, f);
  }
}

// A panel of output columns: `vectors` vectors of neighbouring columns.
struct Panel {
  int64_t column = 0;
  int vectors = 0;
  int last_valid = 0;  // valid lanes of the last vector
};

}  // namespace RNNFAST_NAMESPACE
