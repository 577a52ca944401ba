// SPDX-License-Identifier: Apache-2.0
#include "cpu/plan.h"

#include <algorithm>

namespace rnnfast {
namespace {

// Below this many multiply-adds a call costs less than waking a second thread (about 5 us) would save.
constexpr int64_t kSerialWork = 100'000;

// Packing a matrix costs about as much as reading it for this many rows.
constexpr int64_t kPackingRows = 8;

// gates_x of a chunk should still be in the private cache when the scan reads it; but each chunk reads all of W_ih,
// which few rows would not pay for.
constexpr int64_t kMinChunkRows = 128;

// Up to so many rows are projected at once in training, where gates_x has its place anyway.
constexpr int64_t kWholeRows = 1024;

// Rows of a backward chunk. Fewer pack W_ih and add to dW too often, more take memory and leave the cache.
constexpr int64_t kMinBackwardRows = 128, kMaxBackwardRows = 512, kBackwardChunks = 8;

int useful_threads(const LayerShape& s, int threads) {
  const int64_t work = s.T * s.B * s.directions * s.gates * s.H * (s.I + s.P);
  return work < kSerialWork ? 1 : threads;
}

// Rows without a barrier are right when every thread can keep all of W_hh close and has full row blocks of its own.
Split choose_split(const LayerShape& s, const Machine& m, int threads_per_group) {
  const int64_t weight_bytes = s.gates * s.H * s.P * s.element_bytes;
  const bool weights_stay = weight_bytes <= m.l2_bytes / 2;
  const bool rows_enough = s.B >= 6 * threads_per_group;
  return weights_stay && rows_enough ? Split::kRows : Split::kUnits;
}

LayerPlan plan_common(const LayerShape& s, const Machine& m) {
  LayerPlan plan;
  plan.threads = useful_threads(s, std::max(1, m.threads));
  plan.groups = s.directions == 2 && plan.threads % 2 == 0 ? 2 : 1;
  plan.split = choose_split(s, m, plan.threads / plan.groups);
  return plan;
}

}  // namespace

LayerPlan plan_forward(const LayerShape& s, const Machine& m) {
  LayerPlan plan = plan_common(s, m);
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
  LayerPlan plan = plan_common(s, m);
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
