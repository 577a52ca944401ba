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
namespace fma {

constexpr int kRows = 4;        // of a thread
constexpr int kMaxRows = 128;   // of a block: 32 lanes
constexpr int kMaxColumns = 8;  // samples that one reading of the weights serves

// The compile-time tile for passes of `columns` samples.
constexpr int tile_columns(int columns, int value_bytes) {
  if (columns <= 1) return 1;
  if (value_bytes != 4) return 4;
  return columns <= 2 ? 2 : columns <= 4 ? 4 : kMaxColumns;
}

// Chunks that a thread keeps in registers, of kRows rows: 128 words of weights, or 96 where accumulators are many.
constexpr int register_chunks(int tile, int value_bytes) {
  return (tile == kMaxColumns ? 96 : 128) / (value_bytes == 2 ? 32 : 16);
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

constexpr int64_t weight_bytes(int rows, int64_t depth, int columns, int value_bytes) {
  const int kept = register_chunks(tile_columns(columns, value_bytes), value_bytes);
  const int all = chunks(rows, depth, value_bytes);
  return all > kept ? static_cast<int64_t>(all - kept) * kRows * kPackBytes * kScanThreads : 0;
}

}  // namespace fma

// Tensor cores (cuda/product_mma.h). The warps share out the depth, in blocks of which a lane reads 16 bytes of
// each sample at once; each holds all rows, in tiles of 16.
namespace mma {

constexpr int kTileRows = 16;
constexpr int kTileColumns = 8;
constexpr int kMaxTilesForward = 4;   // tiles of rows: 1, 2 or 4 are compiled
constexpr int kMaxTilesBackward = 2;  // 1 or 2
constexpr int kBlockWords = 8;        // registers of a lane for a tile of rows and a block of depth
constexpr int kWeightWords = 128;     // of a lane

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

constexpr int64_t weight_bytes(int rows, int64_t depth, bool backward, int value_bytes) {
  const int tiles = row_tiles(rows, backward), all = blocks(depth, value_bytes), kept = register_blocks(tiles);
  return all > kept ? static_cast<int64_t>(all - kept) * tiles * kBlockWords * 4 * kScanThreads : 0;
}

}  // namespace mma

// Each warp's sums stand apart, [warps][columns][ld], until the threads of the pointwise part add them in a fixed
// order. An odd number of units from sample to sample spreads their reads over the banks.
constexpr int partial_ld(int gates, int units) { return units * (gates | 1); }

// Elements from sample to sample of `hidden`, [2][B][ld]: whole packs, the padding zero.
constexpr int64_t hidden_ld(int64_t H, int value_bytes) { return round_up(H, kPackBytes / value_bytes); }
constexpr int64_t hidden_elements(int64_t B, int64_t H, int value_bytes) {
  return 2 * B * hidden_ld(H, value_bytes);
}

// Where a scan's dynamic shared memory begins and ends: weights beyond the registers, partial sums of a pass, the
// state of each (sample, unit), and the biases (forward) or the samples' lengths (backward).
struct ScanMemory {
  int64_t partial = 0, state = 0, extra = 0, bytes = 0;
};

// gates: of the cell. columns: samples of a pass. product and value_bytes as the kernel's.
constexpr ScanMemory scan_memory(CudaProduct product, bool backward, int gates, int units, int64_t H, int64_t B,
                                 int columns, int value_bytes) {
  const int slice_gates = backward ? 1 : gates, rows = slice_gates * units;
  const int64_t depth = backward ? gates * H : H, wide = compute_bytes(value_bytes);
  ScanMemory m;
  m.partial = product == CudaProduct::kFma ? fma::weight_bytes(rows, depth, columns, value_bytes)
                                           : mma::weight_bytes(rows, depth, backward, value_bytes);
  m.state = m.partial + round_up(kScanWarps * columns * partial_ld(slice_gates, units) * wide, kPackBytes);
  m.extra = m.state + round_up(B * units * wide, kPackBytes);
  m.bytes = m.extra + round_up(backward ? B * 4 : 2 * rows * wide, kPackBytes);
  return m;
}

}  // namespace rnnfast
