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
// values from L2; weights beyond the registers once for 8 to 32 columns from shared memory.
#pragma once

#include "cuda/primitives/mma.h"
#include "cuda/product_fma.h"

namespace RNNFAST_NAMESPACE {

// How a storage type is multiplied: kStep: depth of a fragment; Operand: what its words hold.
template <class S>
struct MmaOperand {
  using Operand = S;
  static constexpr int kStep = 16;
  // Words 2 s and 2 s + 1 of a lane's 16 bytes of the state are its fragment of B for step s.
  static RNNFAST_DEVICE uint32_t state_word(const Pack<S, 8>& pack, int w) {
    return fragment_word(pack.value[2 * w], pack.value[2 * w + 1]);
  }
  // Of a row of weights, word w of 4 of the lane's 16 bytes of depth, which begin at k.
  template <class Source, class Row>
  static RNNFAST_DEVICE uint32_t weight_word(const Source& source, const Row& from, int k, int w) {
    return fragment_word<S>(source.value(from, k + 2 * w), source.value(from, k + 2 * w + 1));
  }
};
template <>
struct MmaOperand<float> {
  using Operand = Tf32;
  static constexpr int kStep = 8;
  static RNNFAST_DEVICE uint32_t state_word(const Pack<float, 4>& pack, int w) { return to_tf32(pack.value[w]); }
  template <class Source, class Row>
  static RNNFAST_DEVICE uint32_t weight_word(const Source& source, const Row& from, int k, int w) {
    return to_tf32(source.value(from, k + w));
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
  static constexpr int kMostColumns = kTiles < 2 ? 4 : 2;  // tiles of 8 columns at once
  using StatePack = Pack<S, kPack>;

 public:
  static constexpr CudaProduct kProduct = CudaProduct::kMma;

  // source.value(source.row(m), k): W[m, k], zero where m or k are beyond the slice. shared_offset: of
  // mma_slice::weight_bytes of dynamic shared memory.
  template <class Source>
  RNNFAST_DEVICE ProductMma(int shared_offset, int rows, int depth, const Source& source)
      : rows_(rows),
        depth_(depth),
        group_(lane_index() / 4),
        quarter_(lane_index() % 4),
        blocks_(mma_slice::blocks(depth, sizeof(S))),
        shared_(dynamic_shared<uint32_t>(
            shared_offset, blocks_ > kKept ? (blocks_ - kKept) * kTiles * kWords * kScanThreads : 0)) {
    decltype(source.row(0)) from[kTiles][2];
#pragma unroll
    for (int t = 0; t < kTiles; ++t)
#pragma unroll
      for (int i = 0; i < 2; ++i) from[t][i] = source.row(t * mma_slice::kTileRows + group_ + 8 * i);
#pragma unroll
    for (int b = 0; b < kKept; ++b) {
      sync_warp();  // else so many loads are begun at once that their addresses do not fit the registers
#pragma unroll
      for (int t = 0; t < kTiles; ++t)
#pragma unroll
        for (int w = 0; w < kWords; ++w) kept_[b][t][w] = weight_word(source, from[t][w % 2], b, w);
    }
    for (int b = kKept; b < blocks_; ++b)
#pragma unroll
      for (int t = 0; t < kTiles; ++t)
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          Pack<uint32_t, 4> pack;
#pragma unroll
          for (int w = 0; w < 4; ++w) pack.value[w] = weight_word(source, from[t][w % 2], b, 4 * half + w);
          shared_.template store_pack<4>(shared_index(b, t, half), pack);
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
  // Word w of 8: fragment w / 4; in it words 0 and 2 are of row g, 1 and 3 of row g + 8; 2 and 3 go with the second
  // word of B.
  template <class Source, class Row>
  RNNFAST_DEVICE uint32_t weight_word(const Source& source, const Row& from, int b, int w) const {
    return Mma::weight_word(source, from, depth_of(b), w / 4 * 2 + w % 4 / 2);
  }

  template <int kColumns, int kGroup>
  RNNFAST_DEVICE void load_group(StatePack (&h)[kGroup][kColumns], const ExchangeView<S>& state, int64_t first,
                                 int64_t ld, int columns, int block) const {
#pragma unroll
    for (int b = 0; b < kGroup; ++b) {
      const int k = depth_of(block + b);
#pragma unroll
      for (int j = 0; j < kColumns; ++j) {
        const int n = j * mma_slice::kTileColumns + group_;
        if (k < depth_ && n < columns) {
          h[b][j] = state.template load_pack<kPack>(first + n * ld + k);
        } else {
          h[b][j] = StatePack{};
        }
      }
    }
  }

  template <int kColumns>
  static RNNFAST_DEVICE void add_block(FragmentC (&c)[kColumns][kTiles], const uint32_t (&w)[kTiles][kWords],
                                       const StatePack (&h)[kColumns]) {
#pragma unroll
    for (int s = 0; s < 2; ++s)
#pragma unroll
      for (int j = 0; j < kColumns; ++j) {
        B b;
        b.word[0] = Mma::state_word(h[j], 2 * s);
        b.word[1] = Mma::state_word(h[j], 2 * s + 1);
#pragma unroll
        for (int t = 0; t < kTiles; ++t) {
          A a;
#pragma unroll
          for (int i = 0; i < 4; ++i) a.word[i] = w[t][4 * s + i];
          mma(c[j][t], a, b);
        }
      }
  }

  // columns: how many are left.
  template <int kColumns>
  RNNFAST_DEVICE void multiply_columns(const ExchangeView<S>& state, int64_t first, int64_t ld, int columns,
                                       int first_column, const Partials<float>& out) const {
    // Blocks whose state is asked for at once; as many again are in flight while these are multiplied.
    constexpr int kGroup = 4 / kColumns;
    FragmentC c[kColumns][kTiles] = {};
    StatePack now[kGroup][kColumns], ahead[kGroup][kColumns];
    load_group(now, state, first, ld, columns, 0);
#pragma unroll
    for (int b = 0; b < kKept; b += kGroup)
      if (b < blocks_) {
        load_group(ahead, state, first, ld, columns, b + kGroup);
#pragma unroll
        for (int i = 0; i < kGroup; ++i)
          if (b + i < blocks_) add_block(c, kept_[b + i], now[i]);
        copy(now, ahead);
      }
    for (int b = kKept; b < blocks_; b += kGroup) {
      load_group(ahead, state, first, ld, columns, b + kGroup);
#pragma unroll
      for (int i = 0; i < kGroup; ++i) {
        if (b + i >= blocks_) break;
        uint32_t w[kTiles][kWords];
#pragma unroll
        for (int t = 0; t < kTiles; ++t)
#pragma unroll
          for (int half = 0; half < 2; ++half) {
            const Pack<uint32_t, 4> pack = shared_.template load_pack<4>(shared_index(b + i, t, half));
#pragma unroll
            for (int j = 0; j < 4; ++j) w[t][4 * half + j] = pack.value[j];
          }
        add_block(c, w, now[i]);
      }
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
