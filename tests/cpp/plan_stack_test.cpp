// SPDX-License-Identifier: Apache-2.0
// The plan of a stack, for 1 to 64 threads, without running a kernel.
#include "cpu/plan_stack.h"

#include "cells/list.h"
#include "check.h"
#include "cpu/stack.h"

using namespace rnnfast;

namespace {

Machine machine(int threads, int64_t l2 = 512 << 10) { return {threads, l2}; }
LayerShape shape(int64_t T, int64_t B, int64_t I, int64_t H, bool prepacked = true) {
  LayerShape s;
  s.T = T, s.B = B, s.I = I, s.H = s.P = H;
  s.prepacked = prepacked;
  return s;
}

}  // namespace

TEST(a_small_step_uses_one_thread) {
  for (int threads : {1, 2, 7, 64}) {
    const StackPlan small = plan_stack(shape(1, 1, 16, 16), 2, machine(threads));
    CHECK(small.step && small.threads == 1, "%d of %d threads for 4 K multiply-adds", small.threads, threads);
    const StackPlan large = plan_stack(shape(1, 1, 512, 512), 1, machine(threads));
    CHECK(large.step && large.threads == threads, "%d of %d threads for 8 MB", large.threads, threads);
  }
}

TEST(steps_need_packed_weights_and_one_dense_direction) {
  CHECK(!plan_stack(shape(1, 1, 64, 64, false), 1, machine(2)).step, "unpacked");
  LayerShape s = shape(1, 4, 64, 64);
  s.directions = 2;
  CHECK(!plan_stack(s, 1, machine(2)).step, "two directions");
  s = shape(1, 4, 64, 64);
  s.packed_sequence = true;
  CHECK(!plan_stack(s, 1, machine(2)).step, "a packed sequence");
  CHECK(!plan_stack(shape(2, 1, 64, 64), 1, machine(2)).step, "two steps");
}

TEST(layers_run_as_a_wavefront_where_a_core_keeps_a_layer) {
  // 256 KB of recurrent weights, half of a core's cache.
  const StackPlan plan = plan_stack(shape(1000, 1, 128, 128), 2, machine(2));
  CHECK(plan.stages == 2 && plan.threads == 2, "%d stages on %d threads", plan.stages, plan.threads);
  CHECK(plan.first.threads == 1 && plan.above.threads == 1, "a stage is one thread's");
  CHECK(plan_stack(shape(1000, 1, 128, 128), 2, machine(64)).stages == 2, "64 threads would wait at each step");
  CHECK(plan_stack(shape(1000, 1, 128, 128), 4, machine(4)).stages == 4, "a layer each");
  CHECK(plan_stack(shape(1000, 1, 128, 128), 4, machine(2)).stages == 2, "two layers each");
}

TEST(layers_run_one_after_another_elsewhere) {
  CHECK(plan_stack(shape(1000, 1, 128, 128), 2, machine(1)).stages == 1, "one thread");
  CHECK(plan_stack(shape(1000, 1, 128, 128), 1, machine(2)).stages == 1, "one layer");
  CHECK(plan_stack(shape(1000, 1, 512, 512), 2, machine(2)).stages == 1, "4 MB, which no core keeps");
  CHECK(plan_stack(shape(1000, 64, 128, 128), 2, machine(2)).stages == 1, "by rows there is no barrier to save");
  CHECK(plan_stack(shape(8, 1, 128, 128), 2, machine(2)).stages == 1, "too short to fill a pipeline");
  LayerShape s = shape(1000, 1, 128, 128);
  s.directions = 2;
  CHECK(plan_stack(s, 2, machine(2)).stages == 1, "the reverse direction needs the whole layer below");
}

TEST(short_sequences_run_whole_and_unpacked) {
  const StackPlan plan = plan_stack(shape(100, 1, 512, 512, false), 2, machine(2));
  CHECK(plan.chunk_steps == 100 && !plan.pack, "chunk of %lld steps", (long long)plan.chunk_steps);
  CHECK(plan_stack(shape(100000, 1, 512, 512, false), 2, machine(2)).pack, "each chunk would pack again");
  CHECK(!plan_stack(shape(100000, 1, 512, 512, true), 2, machine(2)).pack, "packed before");
}

TEST(stack_plans_stay_in_bounds) {
  const CellInfo& lstm = cell_info(CellKind::lstm);
  for (int threads = 1; threads <= 64; ++threads)
    for (int64_t T : {1, 2, 100, 1000, 100000})
      for (int64_t B : {1, 7, 64, 4096})
        for (int64_t H : {1, 17, 256, 4096})
          for (int layers : {1, 2, 5})
            for (bool prepacked : {false, true}) {
              const StackPlan plan = plan_stack(shape(T, B, 31, H, prepacked), layers, machine(threads));
              CHECK(plan.threads >= 1 && plan.threads <= threads, "threads %d", plan.threads);
              CHECK(plan.stages >= 1 && plan.stages <= layers && plan.stages <= plan.threads, "stages %d",
                    plan.stages);
              CHECK(plan.first.threads <= plan.threads && plan.above.threads <= plan.threads, "layer's threads");
              CHECK(plan.chunk_steps >= 1 && plan.chunk_steps <= T, "chunk %lld", (long long)plan.chunk_steps);
              if (T < 100000) continue;
              int64_t sizes[2];
              for (int i = 0; i < 2; ++i) {
                const LayerShape s = shape(10 * T * (i + 1), B, 31, H, prepacked);
                sizes[i] = stack_space(lstm, s, layers, plan_stack(s, layers, machine(threads)), 8).size;
              }
              CHECK(sizes[0] == sizes[1], "workspace grows with T: B=%lld H=%lld layers=%d", (long long)B,
                    (long long)H, layers);
            }
}
