// SPDX-License-Identifier: Apache-2.0
// The plan is pure: every decision is tested here without running a kernel.
#include "cpu/plan.h"

#include "cells/list.h"
#include "check.h"
#include "cpu/job.h"

using namespace rnnfast;

namespace {

Machine machine(int threads, int64_t l2 = 1 << 20) { return {threads, l2}; }
LayerShape shape(int64_t T, int64_t B, int64_t I, int64_t H, int directions = 1) {
  LayerShape s;
  s.T = T, s.B = B, s.I = I, s.H = s.P = H;
  s.directions = directions;
  return s;
}

}  // namespace

TEST(small_calls_use_one_thread) {
  CHECK(plan_forward(shape(1, 1, 16, 16), machine(8)).threads == 1, "a 2 kFLOP call woke threads");
  CHECK(plan_forward(shape(100, 8, 256, 256), machine(8)).threads == 8, "a large call did not");
}

TEST(few_rows_read_weights_as_they_are) {
  CHECK(plan_forward(shape(1, 1, 512, 512), machine(2)).weights == Weights::kDirect, "streaming step packed");
  CHECK(plan_forward(shape(100, 1, 512, 512), machine(2)).weights == Weights::kPacked, "long sequence unpacked");
}

TEST(directions_run_side_by_side) {
  CHECK(plan_forward(shape(50, 4, 64, 64, 2), machine(2)).groups == 2, "2 threads");
  CHECK(plan_forward(shape(50, 4, 64, 64, 2), machine(3)).groups == 1, "3 threads cannot be halved");
  CHECK(plan_forward(shape(50, 4, 64, 64, 1), machine(2)).groups == 1, "one direction");
}

TEST(rows_are_split_only_where_weights_stay_close) {
  CHECK(plan_forward(shape(64, 64, 128, 128), machine(2)).split == Split::kRows, "256 KB of weights, 32 rows each");
  CHECK(plan_forward(shape(64, 4, 128, 128), machine(2)).split == Split::kUnits, "too few rows");
  CHECK(plan_forward(shape(64, 64, 512, 512), machine(2)).split == Split::kUnits, "4 MB of weights");
}

TEST(a_barrier_must_be_worth_its_price) {
  CHECK(plan_forward(shape(100, 1, 64, 64), machine(2)).threads == 1, "33,000 multiply-adds a step by units");
  CHECK(plan_forward(shape(100, 1, 128, 128), machine(2)).threads == 2, "131,000");
  CHECK(plan_forward(shape(100, 1, 128, 128), machine(64)).threads == 4, "131,000 on many threads");
  CHECK(plan_forward(shape(100, 1, 2048, 2048), machine(64)).threads == 64, "34 millions");
  CHECK(plan_backward(shape(100, 1, 64, 64), machine(2)).threads == 2, "with the gradients twice as much");
  const LayerPlan rows = plan_forward(shape(100, 4, 32, 32), machine(2));
  CHECK(rows.threads == 2 && rows.split == Split::kRows, "short steps of several rows need no barrier");
  CHECK(plan_forward(shape(100, 1, 64, 64, 2), machine(8)).threads == 2, "a thread for each direction");
}

// What each of 1 to 64 threads would be given: nobody comes to the barriers with nothing to do, and the parts make
// the whole.
TEST(every_thread_has_work) {
  for (int threads = 1; threads <= 64; ++threads)
    for (int64_t T : {1, 20, 5000})
      for (int64_t B : {1, 2, 9, 64, 1000})
        for (int64_t H : {1, 24, 100, 512, 2048})
          for (int directions : {1, 2})
            for (bool backward : {false, true}) {
              const LayerShape s = shape(T, B, 31, H, directions);
              const Machine m = machine(threads);
              const LayerPlan plan = backward ? plan_backward(s, m) : plan_forward(s, m);
              CHECK(plan.threads % plan.groups == 0 && plan.groups <= directions, "%d threads in %d groups",
                    plan.threads, plan.groups);
              const int each = plan.threads / plan.groups;
              const int64_t lanes = m.vector_bytes / 4, vectors = (H + lanes - 1) / lanes;
              const int64_t parts = plan.split == Split::kRows ? B : vectors;
              CHECK(each <= parts, "%d threads share %lld parts: T=%lld B=%lld H=%lld, machine of %d", each,
                    (long long)parts, (long long)T, (long long)B, (long long)H, threads);
            }
}

TEST(plans_stay_in_bounds) {
  for (int threads : {1, 2, 3, 7, 16, 64})
    for (int64_t T : {1, 2, 100, 100000})
      for (int64_t B : {1, 7, 64, 4096})
        for (int64_t H : {1, 17, 256, 4096})
          for (int directions : {1, 2}) {
            const LayerShape s = shape(T, B, 31, H, directions);
            const LayerPlan plan = plan_forward(s, machine(threads));
            CHECK(plan.threads >= 1 && plan.threads <= threads, "threads %d", plan.threads);
            CHECK(plan.chunk_steps >= 1 && plan.chunk_steps <= T, "chunk %lld", (long long)plan.chunk_steps);
            const CellInfo& lstm = cell_info(CellKind::lstm);
            CHECK(forward_space(lstm, s, plan, 16, false).size > 0, "no workspace");
            // Inference must not grow with T.
            if (T == 100000) {
              // At lengths beyond any chunk.
              const LayerShape longer[] = {shape(10 * T, B, 31, H, directions),
                                           shape(20 * T, B, 31, H, directions)};
              int64_t sizes[2];
              for (int i = 0; i < 2; ++i)
                sizes[i] =
                    forward_space(lstm, longer[i], plan_forward(longer[i], machine(threads)), 16, false).size;
              CHECK(sizes[0] == sizes[1], "workspace grows with T");
            }
            const LayerPlan back = plan_backward(s, machine(threads));
            CHECK(back.chunk_steps >= 1 && back.chunk_steps <= T, "backward chunk %lld",
                  (long long)back.chunk_steps);
          }
}

TEST(ranges_tile_the_whole) {
  for (int64_t n : {0, 1, 5, 16, 17, 1000})
    for (int count : {1, 2, 3, 64}) {
      int64_t end = 0;
      for (int i = 0; i < count; ++i) {
        const Range r = split_range(n, i, count);
        CHECK(r.begin == end && r.end >= r.begin, "gap at part %d of %d", i, count);
        end = r.end;
      }
      CHECK(end == n, "parts end at %lld of %lld", (long long)end, (long long)n);
    }
}

TEST(short_sequences_pack_the_input_weights_panel_by_panel) {
  LayerShape s = shape(100, 1, 512, 512);
  s.training = true;
  CHECK(plan_forward(s, machine(2)).input == InputWeights::kPanels, "projected at once, yet packed whole");
  s.T = 5000;
  CHECK(plan_forward(s, machine(2)).input == InputWeights::kPacked, "each chunk would pack again");
  s.prepacked = true;
  CHECK(plan_forward(s, machine(2)).input == InputWeights::kPacked, "packed before, and packed again");
}

TEST(backward_chunks_do_not_grow_with_the_sequence) {
  CHECK(plan_backward(shape(64, 32, 512, 512), machine(2)).chunk_steps == 8, "an eighth of the rows");
  CHECK(plan_backward(shape(100000, 32, 512, 512), machine(2)).chunk_steps == 16, "at most 512 rows");
  CHECK(plan_backward(shape(3, 4096, 16, 16), machine(2)).chunk_steps == 1, "at least a step");
}
