// SPDX-License-Identifier: Apache-2.0
// The recurrent product of a persistent scan by plain multiply-adds, for few samples: out[n, m] = sum_k W[m, k]
// state[n, k], W a block's slice [rows, depth] that stays in its registers and shared memory (cuda/footprint.h).
//
// A thread holds 4 rows of the slice and every so many packs of 16 bytes (chunks) of its depth. In a warp,
// `row_lanes` groups of lanes have different rows and read the same packs of the state; all other lanes and all
// warps share out the depth, so a block reads each value of the state once, from L2, straight into registers. A
// tile of kTile samples is multiplied at once. Then the lanes of a group add up their sums: at each level half of a
// lane's sums go to the partner and half of the partner's come, so that 4 kTile sums take as many shuffles, not
// five times that. Every warp's sums go to shared memory; who needs a result adds the eight (sum_of_warps). All
// orders are fixed.
//
// Per step and block: rows * depth * columns multiply-adds on 128 lanes a cycle; the state's columns * depth values
// from L2; weights beyond the registers once a tile from shared memory, at 128 bytes a cycle.
#pragma once

#include <utility>

#include "cuda/footprint.h"
#include "cuda/primitives/memory.h"
#include "cuda/primitives/warp.h"

namespace RNNFAST_NAMESPACE {

// Where the warps' sums stand: [warps][columns][ld]. columns: of a pass; ld: from sample to sample.
template <class V>
struct Partials {
  SharedView<V> view;
  int columns, ld;

  RNNFAST_DEVICE void store(int warp, int n, int m, V x) const { view.store((warp * columns + n) * ld + m, x); }
  RNNFAST_DEVICE V sum_of_warps(int n, int m) const {
    V sums[kScanWarps];
#pragma unroll
    for (int w = 0; w < kScanWarps; ++w) sums[w] = view.load((w * columns + n) * ld + m);
#pragma unroll
    for (int half = kScanWarps / 2; half > 0; half /= 2)
#pragma unroll
      for (int w = 0; w < half; ++w) sums[w] += sums[w + half];
    return sums[0];
  }
};

template <class S, int kTile>
class ProductFma {
  using V = Compute<S>;
  static constexpr int kPack = kPackBytes / static_cast<int>(sizeof(S));
  static constexpr int kRows = fma_slice::kRows;
  static constexpr int kKept = fma_slice::register_chunks(sizeof(S));
  // Chunks whose state is asked for at once; as many again are in flight while these are multiplied.
  static constexpr int kGroup = kTile < 4 ? 4 / kTile : 1;
  using ValuePack = Pack<S, kPack>;
  using StatePack = Pack<uint32_t, 4>;  // as words: see load_words

 public:
  static constexpr CudaProduct kProduct = CudaProduct::kFma;

  // source.row(m): row m of the slice; source.load<N>(row, place): N values of it from a place in the depth on,
  // zero beyond rows and depth. shared_offset: of fma_slice::weight_bytes of dynamic shared memory.
  template <class Source>
  RNNFAST_DEVICE ProductFma(int shared_offset, int rows, int depth, const Source& source)
      : rows_(rows),
        depth_(depth),
        depth_lanes_(kWarp / fma_slice::row_lanes(rows)),
        row_(lane_index() / depth_lanes_ * kRows),
        depth_lane_(lane_index() % depth_lanes_),
        chunks_(fma_slice::chunks(rows, depth, sizeof(S))),
        shared_(dynamic_shared<S>(shared_offset,
                                  chunks_ > kKept ? (chunks_ - kKept) * kRows * kScanThreads * kPack : 0)) {
    decltype(source.row(0)) from[kRows];
#pragma unroll
    for (int r = 0; r < kRows; ++r) from[r] = source.row(row_ + r);
    auto place = source.place(depth_of(0));
    const int step = kScanWarps * depth_lanes_ * kPack;
#pragma unroll
    for (int c = 0; c < kKept; ++c) {
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        sync_warp();  // else so many loads are begun at once that their addresses do not fit the registers
        const ValuePack pack = source.template load<kPack>(from[r], place);
#pragma unroll
        for (int i = 0; i < kPack; ++i) kept_[c][r][i] = widen(pack.value[i]);
      }
      source.advance(place, step);
    }
    for (int c = kKept; c < chunks_; ++c) {
#pragma unroll
      for (int r = 0; r < kRows; ++r)
        shared_.template store_pack<kPack>(shared_index(c, r), source.template load<kPack>(from[r], place));
      source.advance(place, step);
    }
  }

  // Sample n's values begin at state[first + n * ld], depth of them rounded up to whole packs, the padding finite.
  // first, ld: multiples of a pack. n < columns.
  RNNFAST_DEVICE void multiply(const ExchangeView<S>& state, int64_t first, int64_t ld, int columns,
                               const Partials<V>& out) const {
    Cursor cursor{columns_of(state, first, ld, columns, std::make_integer_sequence<int, kTile>()), depth_of(0), 0,
                  0};
    StatePack now[kGroup][kTile];
    load_group(now, state, first, ld, columns, cursor);
    for (int n = 0; n < columns; n += kTile) multiply_tile(now, state, first, ld, columns, cursor, n, out);
  }

 private:
  RNNFAST_DEVICE int depth_of(int chunk) const {
    return ((chunk * kScanWarps + warp_index()) * depth_lanes_ + depth_lane_) * kPack;
  }
  RNNFAST_DEVICE int shared_index(int chunk, int row) const {
    return (((chunk - kKept) * kRows + row) * kScanThreads + thread_index()) * kPack;
  }

  // A tile's samples, each from its first value on; beyond the last one, another, whose sums nobody stores.
  struct Columns {
    ExchangeView<S> view[kTile];
  };
  template <int... kN>
  RNNFAST_DEVICE Columns columns_of(const ExchangeView<S>& state, int64_t first, int64_t ld, int left,
                                    std::integer_sequence<int, kN...>) const {
    return {{state.part(first + (kN < left ? kN : 0) * ld, round_up(depth_, kPack))...}};
  }

  // The group of chunks whose state is read next. It moves by steps, not by formulas of the chunk, whose values for
  // every chunk the compiler would keep in registers.
  struct Cursor {
    Columns columns;
    int k, chunk, n;  // n: first sample of the tile
  };

  // The group at the cursor, zero beyond the depth; moves on, at the end of the depth to the next tile, if any.
  RNNFAST_DEVICE void load_group(StatePack (&h)[kGroup][kTile], const ExchangeView<S>& state, int64_t first,
                                 int64_t ld, int columns, Cursor& cursor) const {
    const int step = kScanWarps * kPack * depth_lanes_;
#pragma unroll
    for (int c = 0; c < kGroup; ++c)
#pragma unroll
      for (int n = 0; n < kTile; ++n) {
        if (cursor.k + c * step < depth_) {
          h[c][n] = load_words(cursor.columns.view[n], cursor.k + c * step);
        } else {
          h[c][n] = StatePack{};
        }
      }
    cursor.k += kGroup * step;
    cursor.chunk += kGroup;
    if (cursor.chunk >= chunks_) {
      cursor.chunk = 0;
      cursor.n += kTile;
      cursor.k = depth_;
      if (cursor.n < columns) {
        cursor.k = depth_of(0);
        cursor.columns = columns_of(state, first + cursor.n * ld, ld, columns - cursor.n,
                                    std::make_integer_sequence<int, kTile>());
      }
    }
  }

  static RNNFAST_DEVICE void add_chunk(V (&acc)[kTile][kRows], const V (&w)[kRows][kPack],
                                       const StatePack (&h)[kTile]) {
#pragma unroll
    for (int n = 0; n < kTile; ++n) {
      ValuePack values;
      __builtin_memcpy(&values, &h[n], sizeof(values));
#pragma unroll
      for (int i = 0; i < kPack; ++i) {
        const V x = widen(values.value[i]);
#pragma unroll
        for (int r = 0; r < kRows; ++r) acc[n][r] += w[r][i] * x;
      }
    }
  }

  RNNFAST_DEVICE void add_shared_chunk(V (&acc)[kTile][kRows], int chunk, const StatePack (&h)[kTile]) const {
    V w[kRows][kPack];
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const ValuePack pack = shared_.template load_pack<kPack>(shared_index(chunk, r));
#pragma unroll
      for (int j = 0; j < kPack; ++j) w[r][j] = widen(pack.value[j]);
    }
    add_chunk(acc, w, h);
  }

  // now: the state of the tile's first group; afterwards, of the next tile's.
  RNNFAST_DEVICE void multiply_tile(StatePack (&now)[kGroup][kTile], const ExchangeView<S>& state, int64_t first,
                                    int64_t ld, int columns, Cursor& cursor, int first_column,
                                    const Partials<V>& out) const {
    V acc[kTile][kRows] = {};
    StatePack ahead[kGroup][kTile];
    // In turn one buffer is read and the other filled.
    constexpr int kGroups = (kKept + kGroup - 1) / kGroup;
#pragma unroll
    for (int g = 0; g < kGroups; ++g)
      if (g * kGroup < chunks_) {
        load_group(g % 2 == 0 ? ahead : now, state, first, ld, columns, cursor);
#pragma unroll
        for (int i = 0; i < kGroup; ++i) {
          const int c = g * kGroup + i;
          if (c < chunks_) {
            if (c < kKept) {
              add_chunk(acc, kept_[c], (g % 2 == 0 ? now : ahead)[i]);
            } else {
              add_shared_chunk(acc, c, (g % 2 == 0 ? now : ahead)[i]);
            }
          }
        }
      }
    const int groups = (chunks_ + kGroup - 1) / kGroup;
    if ((groups < kGroups ? groups : kGroups) % 2 == 1) copy(now, ahead);
    for (int c = kGroups * kGroup; c < chunks_; c += kGroup) {
      load_group(ahead, state, first, ld, columns, cursor);
#pragma unroll
      for (int i = 0; i < kGroup; ++i)
        if (c + i < chunks_) add_shared_chunk(acc, c + i, now[i]);
      copy(now, ahead);
    }
    V sums[kTile * kRows];
#pragma unroll
    for (int n = 0; n < kTile; ++n)
#pragma unroll
      for (int r = 0; r < kRows; ++r) sums[n * kRows + r] = acc[n][r];
    add_lanes<1>(sums, 0, columns - first_column, first_column, out);
  }

  static RNNFAST_DEVICE void copy(StatePack (&to)[kGroup][kTile], const StatePack (&from)[kGroup][kTile]) {
#pragma unroll
    for (int c = 0; c < kGroup; ++c)
#pragma unroll
      for (int n = 0; n < kTile; ++n) to[c][n] = from[c][n];
  }

  // Adds the lanes that differ in bit kMask and the bits above it, below depth_lanes_. A lane ends with the sums
  // first, first + 1, ... of the tile.
  template <int kMask, int kCount>
  RNNFAST_DEVICE void add_lanes(const V (&sums)[kCount], int first, int columns, int first_column,
                                const Partials<V>& out) const {
    if constexpr (kMask < kWarp) {
      if (kMask < depth_lanes_) {
        if constexpr (kCount > 1) {
          constexpr int kHalf = kCount / 2;
          const bool upper = (depth_lane_ & kMask) != 0;
          V half[kHalf];
#pragma unroll
          for (int i = 0; i < kHalf; ++i) {
            const V sent = upper ? sums[i] : sums[i + kHalf];
            half[i] = (upper ? sums[i + kHalf] : sums[i]) + shuffle_xor(sent, kMask);
          }
          add_lanes<kMask * 2>(half,
                               first + (upper != RNNFAST_MUTATION("product fma: half of the sums") ? kHalf : 0),
                               columns, first_column, out);
        } else {
          const V both[1] = {sums[0] + shuffle_xor(sums[0], kMask)};
          add_lanes<kMask * 2>(both, first, columns, first_column, out);
        }
        return;
      }
    }
    // Lanes that hold the same sum: the first stores it.
    if (depth_lane_ / (kTile * kRows / kCount) != 0) return;
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      const int n = (first + i) / kRows, m = row_ + (first + i) % kRows;
      if (n < columns && m < rows_) out.store(warp_index(), first_column + n, m, sums[i]);
    }
  }

  int rows_, depth_, depth_lanes_, row_, depth_lane_, chunks_;
  SharedView<S> shared_;
  V kept_[kKept][kRows][kPack];
};

}  // namespace RNNFAST_NAMESPACE
