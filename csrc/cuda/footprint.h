// SPDX-License-Identifier: Apache-2.0
// What the persistent scans take of a multiprocessor: shared memory, and where the weights of a block's slice lie.
// The kernels lay their memory out by these formulas and the plan asks them, so that the two cannot disagree.
//
// A block multiplies a slice of `rows` rows and `depth` columns of weights by some samples' values at each step.
// Forward: gates * units rows of W_hh, depth H. Backward: one row for each unit, W_hh[:, unit], depth gates * H.
// Its 256 threads hold the slice in registers as far as kWeightWords go, and the rest in shared memory, each thread
// its own part, in packs of 16 bytes side by side: no conflict of banks, and no thread reads another's.
#pragma once

#include "cuda/plan.h"

namespace rnnfast {

constexpr int kScanWarps = kScanThreads / 32;
constexpr int kPackBytes = 16;
constexpr int kWeightWords = 80;  // of a thread; with 96 ptxas spills a few words of some kernels
constexpr int kStagingBytes = kPackBytes * kScanThreads;

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
constexpr int64_t round_up(int64_t a, int64_t to) { return ceil_div(a, to) * to; }

constexpr int value_bytes(CudaDtype dtype) {
  return dtype == CudaDtype::kDouble ? 8 : dtype == CudaDtype::kFloat ? 4 : 2;
}
// Of the type in which values of a dtype are computed, states kept and sums accumulated.
constexpr int compute_bytes(int value_bytes) { return value_bytes == 8 ? 8 : 4; }

// Multiply-adds (cuda/product_fma.h). A thread holds kFmaRows rows of the slice and, of its depth, chunks of 16
// bytes of stored values. `row_lanes` neighbouring groups of lanes own different rows; the other lanes and all the
// warps share out the depth.
namespace fma_slice {

constexpr int kRows = 4;        // of a thread
constexpr int kMaxRows = 128;   // of a block: 32 lanes
constexpr int kMaxColumns = 4;  // samples of a tile: that one reading of the weights serves

// The compile-time tile for passes of `columns` samples.
constexpr int tile_columns(int columns, int value_bytes) {
  if (columns <= 1) return 1;
  return columns <= 2 && value_bytes == 4 ? 2 : kMaxColumns;
}

// Chunks that a thread keeps in registers, widened.
constexpr int register_chunks(int value_bytes) {
  return kWeightWords / (kRows * kPackBytes / value_bytes * compute_bytes(value_bytes) / 4);
}

constexpr int row_lanes(int rows) {
  int lanes = 1;
  while (lanes * kRows < rows) lanes *= 2;
  return lanes;
}

// Chunks of a thread.
constexpr int chunks(int rows, int64_t depth, int value_bytes) {
  const int depth_lanes = kScanThreads / row_lanes(rows);
  return static_cast<int>(ceil_div(ceil_div(depth * value_bytes, kPackBytes), depth_lanes));
}

// Words of a thread's registers that hold weights.
constexpr int weight_words(int rows, int64_t depth, int value_bytes) {
  const int kept = register_chunks(value_bytes), all = chunks(rows, depth, value_bytes);
  return (all < kept ? all : kept) * kRows * kPackBytes / value_bytes * compute_bytes(value_bytes) / 4;
}

constexpr int64_t weight_bytes(int rows, int64_t depth, int value_bytes) {
  const int kept = register_chunks(value_bytes);
  const int all = chunks(rows, depth, value_bytes);
  return all > kept ? static_cast<int64_t>(all - kept) * kRows * kPackBytes * kScanThreads : 0;
}

}  // namespace fma_slice

// Tensor cores (cuda/product_mma.h). The warps share out the depth, in blocks of which a lane reads 16 bytes of
// each sample at once; each holds all rows, in tiles of 16.
namespace mma_slice {

constexpr int kTileRows = 16;
constexpr int kTileColumns = 8;
constexpr int kMaxTilesForward = 4;   // tiles of rows: 1, 2 or 4 are compiled
constexpr int kMaxTilesBackward = 2;  // 1 or 2
constexpr int kBlockWords = 8;        // registers of a lane for a tile of rows and a block of depth

constexpr int block_depth(int value_bytes) { return 4 * kPackBytes / value_bytes; }

// Tiles of rows as compiled; 0: too many rows.
constexpr int row_tiles(int rows, bool backward) {
  const int most = backward ? kMaxTilesBackward : kMaxTilesForward;
  int tiles = 1;
  while (tiles * kTileRows < rows) tiles *= 2;
  return tiles <= most ? tiles : 0;
}

// Blocks of depth of a warp.
constexpr int blocks(int64_t depth, int value_bytes) {
  return static_cast<int>(ceil_div(depth, block_depth(value_bytes) * kScanWarps));
}
constexpr int register_blocks(int tiles) { return kWeightWords / kBlockWords / tiles; }

constexpr int weight_words(int rows, int64_t depth, bool backward, int value_bytes) {
  const int tiles = row_tiles(rows, backward), all = blocks(depth, value_bytes), kept = register_blocks(tiles);
  return (all < kept ? all : kept) * tiles * kBlockWords;
}

constexpr int64_t weight_bytes(int rows, int64_t depth, bool backward, int value_bytes) {
  const int tiles = row_tiles(rows, backward), all = blocks(depth, value_bytes), kept = register_blocks(tiles);
  return all > kept ? static_cast<int64_t>(all - kept) * tiles * kBlockWords * 4 * kScanThreads : 0;
}

}  // namespace mma_slice

// Each warp's sums stand apart, [warps][columns][ld], until the threads of the pointwise part add them in a fixed
// order. An odd number of units from sample to sample spreads their reads over the banks.
constexpr int partial_ld(int gates, int units) { return units * (gates | 1); }

// What blocks exchange has whole packs from sample to sample, the padding zero. Forward: `hidden`, [2][B][ld].
// Backward: delta itself where H is whole packs, else its recurrent columns, [2][B][gates][ld].
constexpr int64_t exchange_ld(int64_t H, int value_bytes) { return round_up(H, kPackBytes / value_bytes); }
constexpr int64_t hidden_elements(int64_t B, int64_t H, int value_bytes) {
  return 2 * B * exchange_ld(H, value_bytes);
}
constexpr int64_t exchange_elements(int gates, int64_t B, int64_t H, int value_bytes) {
  return exchange_ld(H, value_bytes) == H ? 0 : 2 * B * gates * exchange_ld(H, value_bytes);
}

// A scan's dynamic shared memory: weights beyond the registers, then the partial sums of a pass, which stand where
// weights pass through (16 bytes a thread) at the beginning.
struct ScanMemory {
  int64_t partial = 0, bytes = 0;  // where the sums begin; in all
};

// gates: of the cell. columns: samples of a pass. product and value_bytes as the kernel's.
constexpr ScanMemory scan_memory(CudaProduct product, bool backward, int gates, int units, int64_t H, int columns,
                                 int value_bytes) {
  const int slice_gates = backward ? 1 : gates, rows = slice_gates * units;
  const int64_t depth = (backward ? gates : 1) * exchange_ld(H, value_bytes);
  ScanMemory m;
  m.partial = product == CudaProduct::kFma ? fma_slice::weight_bytes(rows, depth, value_bytes)
                                           : mma_slice::weight_bytes(rows, depth, backward, value_bytes);
  const int64_t sums = static_cast<int64_t>(kScanWarps) * columns * partial_ld(slice_gates, units);
  const int64_t sum_bytes = round_up(sums * compute_bytes(value_bytes), kPackBytes);
  m.bytes = m.partial + (sum_bytes > kStagingBytes ? sum_bytes : kStagingBytes);
  return m;
}

// Whether the kernels can run such a block at all, given the shared memory: units of a block and rows of its slice.
constexpr bool scan_fits(CudaProduct product, bool backward, int gates, int units) {
  const int rows = backward ? units : gates * units;
  if (units < 1 || units > kScanThreads) return false;
  return product == CudaProduct::kFma ? rows <= fma_slice::kMaxRows : mma_slice::row_tiles(rows, backward) > 0;
}

}  // namespace rnnfast
