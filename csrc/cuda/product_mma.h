// SPDX-License-Identifier: Apache-2.0
// The recurrent product of a persistent scan by tensor cores: out[n, m] = sum_k W[m, k] state[n, k], W a block's
// slice [rows, depth] that stays in its registers and shared memory as fragments (cuda/footprint.h). Half and
// bfloat16 as they are, float rounded to tf32; sums in float.
//
// All warps hold all rows, in kTiles tiles of 16, and share out the depth in blocks of 64 bytes (32 values, 16 of
// float): lane 4 g + q reads the q-th 16 bytes of column (sample) g straight from L2, and those are its values for
// two fragments of B. Which k of the block a place in a fragment stands for is ours to choose, so A is laid out to
// match. Of a block and a tile of rows a lane has 8 words of A: two fragments.
//
// Every warp's sums go to shared memory; who needs a result adds the eight, in a fixed order.
//
// Per step and block: 16 kTiles * depth * columns (rounded up to 8) multiply-adds; the state's columns * depth
// values from L2; weights beyond the registers once for 8 or 16 columns from shared memory.
#pragma once

#include <utility>

#include "cuda/primitives/mma.h"
#include "cuda/product_fma.h"

namespace RNNFAST_NAMESPACE {

// How a storage type is multiplied: kStep: depth of a fragment; Operand: what its words hold.
template <class S>
struct MmaOperand {
  using Operand = S;
  static constexpr int kStep = 16;
  // From a word of the 16 stored bytes; 2 s and 2 s + 1 are a fragment of B for step s of the block.
  static RNNFAST_DEVICE uint32_t operand(uint32_t stored) { return stored; }
};
template <>
struct MmaOperand<float> {
  using Operand = Tf32;
  static constexpr int kStep = 8;
  static RNNFAST_DEVICE uint32_t operand(uint32_t stored) {
    float x;
    __builtin_memcpy(&x, &stored, sizeof(x));
    return to_tf32(x);
  }
};

template <class S, int kTiles>
class ProductMma {
  using Mma = MmaOperand<S>;
  using A = FragmentA<typename Mma::Operand, Mma::kStep>;
  using B = FragmentB<typename Mma::Operand, Mma::kStep>;
  static constexpr int kPack = kPackBytes / static_cast<int>(sizeof(S));
  static constexpr int kDepth = mma_slice::block_depth(sizeof(S));
  static constexpr int kWords = mma_slice::kBlockWords;
  static constexpr int kKept = mma_slice::register_blocks(kTiles);
  static constexpr int kMostColumns = 2;  // tiles of 8 columns at once
  using StatePack = Pack<uint32_t, 4>;    // as words: see load_words

 public:
  static constexpr CudaProduct kProduct = CudaProduct::kMma;

  // source: see ForwardSlice (cuda/scan_forward.h). shared_offset: of
  // mma_slice::weight_bytes of dynamic shared memory, and kStagingBytes that are free again afterwards.
  template <class Source>
  RNNFAST_DEVICE ProductMma(int shared_offset, int rows, int depth, const Source& source)
      : rows_(rows),
        depth_(depth),
        group_(lane_index() / 4),
        quarter_(lane_index() % 4),
        blocks_(mma_slice::blocks(depth, sizeof(S))),
        shared_(dynamic_shared<uint32_t>(
            shared_offset, blocks_ > kKept ? (blocks_ - kKept) * kTiles * kWords * kScanThreads : 0)) {
    const int staging =
        shared_offset + (blocks_ > kKept ? (blocks_ - kKept) * kTiles * kWords * 4 * kScanThreads : 0);
    decltype(source.row(0)) from[kTiles][2];
#pragma unroll
    for (int t = 0; t < kTiles; ++t)
#pragma unroll
      for (int i = 0; i < 2; ++i)
        from[t][i] = source.row(t * mma_slice::kTileRows + group_ +
                                8 * (RNNFAST_MUTATION("product mma: fragment") ? 1 - i : i));
    auto place = source.place(depth_of(0));
#pragma unroll
    for (int b = 0; b < kKept; ++b) {
#pragma unroll
      for (int t = 0; t < kTiles; ++t) {
        sync_block();  // else so many loads are begun at once that their addresses do not fit the registers
        load_weights(kept_[b][t], source, from[t], place, staging);
      }
      source.advance(place, kScanWarps * kDepth);
    }
    for (int b = kKept; b < blocks_; ++b) {
#pragma unroll
      for (int t = 0; t < kTiles; ++t) {
        uint32_t w[kWords];
        load_weights(w, source, from[t], place, staging);
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          Pack<uint32_t, 4> pack;
#pragma unroll
          for (int i = 0; i < 4; ++i) pack.value[i] = w[4 * half + i];
          shared_.template store_pack<4>(shared_index(b, t, half), pack);
        }
      }
      source.advance(place, kScanWarps * kDepth);
    }
  }

  // Sample n's values begin at state[first + n * ld], depth of them rounded up to whole packs, the padding finite.
  // first, ld: multiples of a pack. n < columns.
  RNNFAST_DEVICE void multiply(const ExchangeView<S>& state, int64_t first, int64_t ld, int columns,
                               const Partials<float>& out) const {
    int n = 0;
    for (; columns - n > mma_slice::kTileColumns; n += kMostColumns * mma_slice::kTileColumns)
      multiply_columns<kMostColumns>(state, first + n * ld, ld, columns - n, n, out);
    if (n < columns) multiply_columns<1>(state, first + n * ld, ld, columns - n, n, out);
  }

 private:
  // Where the lane's 16 bytes of block b of its warp begin.
  RNNFAST_DEVICE int depth_of(int b) const { return (b * kScanWarps + warp_index()) * kDepth + quarter_ * kPack; }
  RNNFAST_DEVICE int shared_index(int b, int tile, int half) const {
    return ((((b - kKept) * kTiles + tile) * 2 + half) * kScanThreads + thread_index()) * 4;
  }
  // A lane's two fragments of A for a block and a tile of rows, which have rows g and g + 8 of it. Words 0 and 2 of
  // a fragment are of the first, 1 and 3 of the second; 2 and 3 go with the second word of B.
  // Values pass through 16 bytes of shared memory, the thread's own: the compiler would keep many of them unpacked.
  template <class Source, class Row>
  static RNNFAST_DEVICE void load_weights(uint32_t (&w)[kWords], const Source& source, const Row (&from)[2],
                                          const typename Source::Place& place, int staging) {
    const auto values = dynamic_shared<S>(staging, kScanThreads * kPack);
    const auto words = dynamic_shared<uint32_t>(staging, kScanThreads * 4);
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      values.template store_pack<kPack>(thread_index() * kPack, source.template load<kPack>(from[i], place));
      const Pack<uint32_t, 4> pack = words.template load_pack<4>(thread_index() * 4);
#pragma unroll
      for (int j = 0; j < 4; ++j) w[2 * j + i] = Mma::operand(pack.value[j]);
    }
  }

  // The lane's columns of a pass.
  template <int kColumns>
  struct Columns {
    ExchangeView<S> view[kColumns];  // each from its first value on
    bool valid[kColumns];
  };

  // The lane's part of the blocks from k on, zero beyond depth and columns; moves on.
  template <int kColumns, int kGroup>
  RNNFAST_DEVICE void load_group(StatePack (&h)[kGroup][kColumns], const Columns<kColumns>& columns, int& k) const {
    constexpr int kStep = kScanWarps * kDepth;
#pragma unroll
    for (int b = 0; b < kGroup; ++b)
#pragma unroll
      for (int j = 0; j < kColumns; ++j) {
        if (k + b * kStep < depth_ && columns.valid[j]) {
          h[b][j] = load_words(columns.view[j], k + b * kStep);
        } else {
          h[b][j] = StatePack{};
        }
      }
    k += kGroup * kStep;
  }

  // Column j of the lane's, of `left`; where there is none, another one, which is not looked at.
  RNNFAST_DEVICE ExchangeView<S> column(const ExchangeView<S>& state, int64_t first, int64_t ld, int left,
                                        int j) const {
    const int n = j * mma_slice::kTileColumns + group_;
    return state.part(first + (n < left ? n : 0) * ld, round_up(depth_, kPack));
  }
  template <int... kJ>
  RNNFAST_DEVICE Columns<sizeof...(kJ)> columns_of(const ExchangeView<S>& state, int64_t first, int64_t ld,
                                                   int left, std::integer_sequence<int, kJ...>) const {
    return {{column(state, first, ld, left, kJ)...}, {(kJ * mma_slice::kTileColumns + group_ < left)...}};
  }

  template <int kColumns>
  static RNNFAST_DEVICE void add_block(FragmentC (&c)[kColumns][kTiles], const uint32_t (&w)[kTiles][kWords],
                                       const StatePack (&h)[kColumns]) {
#pragma unroll
    for (int s = 0; s < 2; ++s)
#pragma unroll
      for (int j = 0; j < kColumns; ++j) {
        B b;
        b.word[0] = Mma::operand(h[j].value[2 * s]);
        b.word[1] = Mma::operand(h[j].value[2 * s + 1]);
#pragma unroll
        for (int t = 0; t < kTiles; ++t) {
          A a;
#pragma unroll
          for (int i = 0; i < 4; ++i) a.word[i] = w[t][4 * s + i];
          mma(c[j][t], a, b);
        }
      }
  }

  template <int kColumns>
  RNNFAST_DEVICE void add_shared_block(FragmentC (&c)[kColumns][kTiles], int block,
                                       const StatePack (&h)[kColumns]) const {
    uint32_t w[kTiles][kWords];
#pragma unroll
    for (int t = 0; t < kTiles; ++t)
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const Pack<uint32_t, 4> pack = shared_.template load_pack<4>(shared_index(block, t, half));
#pragma unroll
        for (int j = 0; j < 4; ++j) w[t][4 * half + j] = pack.value[j];
      }
    add_block(c, w, h);
  }

  // columns: how many are left.
  template <int kColumns>
  RNNFAST_DEVICE void multiply_columns(const ExchangeView<S>& state, int64_t first, int64_t ld, int columns,
                                       int first_column, const Partials<float>& out) const {
    // Blocks whose state is asked for at once; as many again are in flight while these are multiplied.
    constexpr int kGroup = 4 / kColumns;
    FragmentC c[kColumns][kTiles] = {};
    StatePack now[kGroup][kColumns], ahead[kGroup][kColumns];
    const Columns<kColumns> lane_columns =
        columns_of(state, first, ld, columns, std::make_integer_sequence<int, kColumns>());
    int k = depth_of(0);
    load_group(now, lane_columns, k);
    // In turn one buffer is read and the other filled.
    constexpr int kGroups = (kKept + kGroup - 1) / kGroup;
#pragma unroll
    for (int g = 0; g < kGroups; ++g)
      if (g * kGroup < blocks_) {
        load_group(g % 2 == 0 ? ahead : now, lane_columns, k);
#pragma unroll
        for (int i = 0; i < kGroup; ++i) {
          const int b = g * kGroup + i;
          if (b < blocks_) {
            if (b < kKept) {
              add_block(c, kept_[b], (g % 2 == 0 ? now : ahead)[i]);
            } else {
              add_shared_block(c, b, (g % 2 == 0 ? now : ahead)[i]);
            }
          }
        }
      }
    if (kGroups % 2 == 1) copy(now, ahead);
    for (int b = kGroups * kGroup; b < blocks_; b += kGroup) {
      load_group(ahead, lane_columns, k);
#pragma unroll
      for (int i = 0; i < kGroup; ++i)
        if (b + i < blocks_) add_shared_block(c, b + i, now[i]);
      copy(now, ahead);
    }
#pragma unroll
    for (int j = 0; j < kColumns; ++j)
#pragma unroll
      for (int t = 0; t < kTiles; ++t)
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const int n = j * mma_slice::kTileColumns + 2 * quarter_ + i % 2;
          const int m = t * mma_slice::kTileRows + group_ + i / 2 * 8;
          if (n < columns && m < rows_) out.store(warp_index(), first_column + n, m, c[j][t].value[i]);
        }
  }

  template <int kColumns, int kGroup>
  static RNNFAST_DEVICE void copy(StatePack (&to)[kGroup][kColumns], const StatePack (&from)[kGroup][kColumns]) {
#pragma unroll
    for (int b = 0; b < kGroup; ++b)
#pragma unroll
      for (int j = 0; j < kColumns; ++j) to[b][j] = from[b][j];
  }

  int rows_, depth_, group_, quarter_, blocks_;
  SharedView<uint32_t> shared_;
  uint32_t kept_[kKept][kTiles][kWords];
};

}  // namespace RNNFAST_NAMESPACE
