// SPDX-License-Identifier: Apache-2.0
#include "cpu/plan.h"

#include <algorithm>

namespace rnnfast {
namespace {

// Below this many multiply-adds a call costs less than waking a second thread (about 5 us) would save.
constexpr int64_t kSerialWork = 100'000;

// Multiply-adds of a thread between two barriers, below which the barrier and the exchange of h (about 0.7 us on
// two cores) cost more than another thread saves: LSTM, B = 1, H = 64 takes 1.35 us a step on one thread, 1.8 on
// two.
constexpr int64_t kWorkPerBarrier = 30'000;

// Rows of a thread that fill its tiles; and how few will do where a thread's step is short.
constexpr int64_t kFullRows = 6, kFewRows = 2, kShortStep = 200'000;

// Packing a matrix costs about as much as reading it for this many rows.
constexpr int64_t kPackingRows = 8;

// gates_x of a chunk should still be in the private cache when the scan reads it; but each chunk reads all of W_ih,
// which few rows would not pay for.
constexpr int64_t kMinChunkRows = 128;

// Up to so many rows are projected at once in training, where gates_x has its place anyway.
constexpr int64_t kWholeRows = 1024;

// Rows of a backward chunk. Fewer pack W_ih and add to dW too often, more take memory and leave the cache.
constexpr int64_t kMinBackwardRows = 128, kMaxBackwardRows = 512, kBackwardChunks = 8;

// Multiply-adds of a step of one direction.
int64_t step_work(const LayerShape& s) { return s.B * s.gates * s.H * (s.I + s.P); }

bool wakes_threads(const LayerShape& s) { return s.T * s.directions * step_work(s) >= kSerialWork; }

// Rows without a barrier are right when every thread can keep all of W_hh close and has full row blocks of its own;
// of short steps, of which a barrier would be a good part, fewer rows will do.
Split choose_split(const LayerShape& s, const Machine& m, int threads) {
  const int64_t weight_bytes = s.gates * s.H * s.P * s.element_bytes;
  const bool weights_stay = weight_bytes <= m.l2_bytes / 2;
  const int64_t rows = step_work(s) <= threads * kShortStep ? kFewRows : kFullRows;
  return weights_stay && s.B >= rows * threads ? Split::kRows : Split::kUnits;
}

// How the threads of one direction share it, and how many of them gain by it. work: multiply-adds between two
// barriers, by units.
struct Sharing {
  Split split;
  int threads;
};
Sharing share(const LayerShape& s, const Machine& m, int threads, int64_t work) {
  const Split split = choose_split(s, m, threads);
  if (split == Split::kRows) return {split, threads};
  const int64_t lanes = m.vector_bytes / s.element_bytes;
  const int64_t most = std::min(work / kWorkPerBarrier, (s.H + lanes - 1) / lanes);
  return {split, int(std::clamp<int64_t>(most, 1, threads))};
}

LayerPlan plan_common(const LayerShape& s, const Machine& m, int64_t work) {
  LayerPlan plan;
  const int threads = wakes_threads(s) ? std::max(1, m.threads) : 1;
  Sharing sharing = share(s, m, threads, work);
  if (s.directions == 2 && threads > 1) {
    // Side by side, unless an odd thread would be left over that one direction after the other could use.
    const Sharing half = share(s, m, threads / 2, work);
    if (2 * half.threads >= sharing.threads) plan.groups = 2, sharing = half;
  }
  plan.split = sharing.split;
  plan.threads = plan.groups * sharing.threads;
  return plan;
}

}  // namespace

LayerPlan plan_forward(const LayerShape& s, const Machine& m) {
  LayerPlan plan = plan_common(s, m, step_work(s));
  if (s.T * s.B <= kPackingRows && !s.packed_sequence && !s.projection && !s.prepacked) {
    plan.weights = Weights::kDirect;
    plan.split = Split::kUnits;
    plan.chunk_steps = 1;
    return plan;
  }
  const int threads_per_group = plan.threads / plan.groups;
  const int64_t row_bytes = std::max<int64_t>(1, s.gates * s.H * s.element_bytes / threads_per_group);
  const int64_t rows = std::max(kMinChunkRows, m.l2_bytes / 4 / row_bytes);
  plan.chunk_steps = std::clamp<int64_t>(rows / std::max<int64_t>(1, s.B), 1, std::max<int64_t>(1, s.T));
  if (s.training && s.T * s.B <= kWholeRows) plan.chunk_steps = std::max<int64_t>(1, s.T);
  // By rows every thread would pack every panel.
  if (plan.chunk_steps >= s.T && !s.prepacked && plan.split == Split::kUnits) plan.input = InputWeights::kPanels;
  return plan;
}

LayerPlan plan_backward(const LayerShape& s, const Machine& m) {
  // The gradients of a step are as much work again as its scan, and wait for each other only once a chunk.
  LayerPlan plan = plan_common(s, m, 2 * step_work(s));
  const int64_t rows = std::clamp(s.T * s.B / kBackwardChunks, kMinBackwardRows, kMaxBackwardRows);
  plan.chunk_steps = std::clamp<int64_t>(rows / std::max<int64_t>(1, s.B), 1, std::max<int64_t>(1, s.T));
  return plan;
}

const char* to_string(Split split) { return split == Split::kUnits ? "hidden units" : "batch rows"; }

const char* to_string(Weights weights) {
  return weights == Weights::kPacked ? "packed panels" : "torch's own layout";
}

Range split_range(int64_t n, int index, int count) { return {n * index / count, n * (index + 1) / count}; }

}  // namespace rnnfast
