// SPDX-License-Identifier: Apache-2.0
// Launches, identity of threads, exchange within warps and blocks, barriers of the grid; known results.
#include <thread>
#include <vector>

#include "run.h"

namespace RNNFAST_NAMESPACE {
namespace {

struct Identity {
  int* out;  // [grid_y, grid_x, threads]
};

RNNFAST_KERNEL(96, 1) write_identity(Identity p) {
  const int block = block_index_y() * grid_blocks() + block_index();
  p.out[block * block_threads() + thread_index()] =
      block * 1000000 + warp_index() * 10000 + lane_index() * 100 + grid_blocks_y() * 10 + block_warps();
}

TEST(launch_identity) {
  FOR_SEEDS for (const bool cooperative : {false, true}) {
    std::vector<int> out(3 * 2 * 96, -1);
    Launch shape;
    shape.grid_x = 3;
    shape.grid_y = 2;
    shape.block = shape.max_threads = 96;
    shape.cooperative = cooperative;
    CHECK_CLEAN(launch(write_identity, shape, Identity{out.data()}, Stream{}));
    for (int i = 0; i < static_cast<int>(out.size()); ++i) {
      const int expected = i / 96 * 1000000 + i % 96 / 32 * 10000 + i % 32 * 100 + 20 + 3;
      CHECK(out[static_cast<size_t>(i)] == expected, "thread %d: %d", i, out[static_cast<size_t>(i)]);
    }
  }
}

struct Lanes {
  double* out;  // [4, 32]
};

RNNFAST_KERNEL(32, 1) exchange_lanes(Lanes p) {
  const int lane = lane_index();
  p.out[lane] = group_sum<8>(1.5 * lane);
  p.out[32 + lane] = shuffle(static_cast<float>(lane * lane), (lane + 5) % 32);
  p.out[64 + lane] = ballot(lane % 3 == 0);
  p.out[96 + lane] = any_lane(lane == 7) + 2 * any_lane(lane == 40);
}

TEST(launch_lanes) {
  FOR_SEEDS {
    std::vector<double> out(128);
    CHECK_CLEAN(run(exchange_lanes, Lanes{out.data()}, 1, 32));
    for (int lane = 0; lane < 32; ++lane) {
      const int group = lane / 8 * 8, source = (lane + 5) % 32;
      const double expected[] = {1.5 * (8 * group + 28), double(source * source), double(0x49249249u), 1};
      for (int i = 0; i < 4; ++i)
        CHECK(out[static_cast<size_t>(32 * i + lane)] == expected[i], "lane %d, %d: %g", lane, i,
              out[static_cast<size_t>(32 * i + lane)]);
    }
  }
}

struct Ring {
  float* values;  // [blocks * 64]
  float* state;   // [2, blocks * 64]
  unsigned* counter;
  int steps;
};

// Each value becomes the sum of its two neighbours, `steps` times; through shared memory within a block, through
// the other half of the exchanged buffer between blocks.
RNNFAST_KERNEL(64, 1) step_ring(Ring p) {
  const int n = grid_blocks() * block_threads(), i = block_index() * block_threads() + thread_index();
  const ExchangeView<float> state(p.state, 2 * n);
  RNNFAST_SHARED(float, mine, 64);
  GridBarrier barrier(p.counter, grid_blocks());
  float x = p.values[i];
  for (int s = 1; s <= p.steps; ++s) {
    mine.store(thread_index(), x);
    state.store((s - 1) % 2 * n + i, x);
    barrier.arrive();
    const int right = (thread_index() + 1) % block_threads();
    float sum = right ? mine.load(right) : 0;  // between arrive and wait: the block's own
    barrier.wait();
    const ExchangeView<float> before = state.part((s - 1) % 2 * n, n);
    if (!right) sum = before.load((i + 1) % n);
    x = sum + before.load((i + n - 1) % n);
  }
  p.values[i] = x;
}

TEST(launch_grid_barrier) {
  constexpr int kBlocks = 5, kValues = kBlocks * 64;
  std::vector<double> expected(kValues);
  for (int i = 0; i < kValues; ++i) expected[static_cast<size_t>(i)] = i % 7;
  for (int s = 0; s < 7; ++s) {
    const std::vector<double> old = expected;
    for (size_t i = 0; i < kValues; ++i) expected[i] = old[(i + 1) % kValues] + old[(i + kValues - 1) % kValues];
  }
  FOR_SEEDS {
    std::vector<float> values(kValues), state(2 * kValues);
    for (int i = 0; i < kValues; ++i) values[static_cast<size_t>(i)] = static_cast<float>(i % 7);
    unsigned counter = 0;
    CHECK_CLEAN(run_cooperative(step_ring, Ring{values.data(), state.data(), &counter, 7}, kBlocks, 64));
    CHECK(counter == kBlocks * 7, "%u", counter);
    for (size_t i = 0; i < kValues; ++i) CHECK(values[i] == expected[i], "value %zu: %g", i, double(values[i]));
  }
}

TEST(launch_from_many_threads) {
  std::vector<std::thread> team;
  std::vector<int> good(4, 0);
  for (size_t k = 0; k < 4; ++k)
    team.emplace_back([&, k] {
      for (int i = 0; i < 5; ++i) {
        std::vector<float> values(2 * 64, 1), state(2 * 2 * 64);
        unsigned counter = 0;
        good[k] += bool(run_cooperative(step_ring, Ring{values.data(), state.data(), &counter, 3}, 2, 64)) &&
                   values[9] == 8;
      }
    });
  for (std::thread& thread : team) thread.join();
  for (size_t k = 0; k < 4; ++k) CHECK(good[k] == 5, "thread %zu: %d", k, good[k]);
}

TEST(launch_order_is_the_seed) {
  // Without barriers the order in which threads come to a plain counter is the scheduler's.
  static int next;
  struct Order {
    int* out;
  };
  void (*const kernel)(Order) = [](Order p) { p.out[next++] = block_index() * 100 + thread_index(); };
  std::vector<int> first(128), again(128), other(128);
  const auto record = [&](uint64_t seed, std::vector<int>& out) {
    next = 0;
    emulator::set_seed(seed);
    CHECK_CLEAN(run(kernel, Order{out.data()}, 4, 32));
  };
  record(3, first);
  record(3, again);
  record(4, other);
  emulator::set_seed(0);
  CHECK(first == again, "the same seed, two orders");
  CHECK(first != other, "two seeds, the same order");
}

TEST(launch_limits) {
  struct Nothing {};
  void (*const kernel)(Nothing) = [](Nothing) {};
  const auto try_launch = [&](int grid, int block, int max_threads, int shared_bytes, bool cooperative) {
    Launch shape;
    shape.grid_x = grid;
    shape.block = block;
    shape.max_threads = max_threads;
    shape.shared_bytes = shared_bytes;
    shape.cooperative = cooperative;
    return launch(kernel, shape, Nothing{}, Stream{});
  };
  CHECK_REPORT(try_launch(1, 1056, 2048, 0, false), "launch", "invalid configuration argument");
  CHECK_REPORT(try_launch(0, 32, 32, 0, false), "launch", "invalid configuration argument");
  CHECK_REPORT(try_launch(1, 40, 64, 0, false), "launch", "not a multiple of 32");
  CHECK_REPORT(try_launch(1, 128, 64, 0, false), "launch", "launch bounds 64");
  const struct {
    const char* name;
    int shared_kb, processors;
  } limits[] = {{"sm_75", 64, 40}, {"sm_80", 163, 108}, {"sm_90", 227, 132}, {"sm_120", 99, 170}};
  for (const auto& limit : limits) {
    CHECK(emulator::set_device(limit.name), "%s", limit.name);
    CHECK_CLEAN(try_launch(1, 32, 32, limit.shared_kb * 1024, false));
    CHECK_REPORT(try_launch(1, 32, 32, limit.shared_kb * 1024 + 1, false), "launch", "invalid argument");
    CHECK_CLEAN(try_launch(limit.processors, 32, 32, 0, true));
    CHECK_REPORT(try_launch(limit.processors + 1, 32, 32, 0, true), "launch",
                 "too many blocks in cooperative launch");
    CHECK_CLEAN(try_launch(limit.processors + 1, 32, 32, 0, false));
  }
  CHECK(emulator::set_device("sm_90", 3), "a small sm_90");
  CHECK_CLEAN(try_launch(3, 32, 32, 0, true));
  CHECK_REPORT(try_launch(4, 32, 32, 0, true), "launch", "sm_90 holds 3 at once");
  CHECK(!emulator::set_device("sm_1"), "an unknown device");
  emulator::set_device("sm_80");
}

TEST(launch_statistics_and_mutations) {
  struct Nothing {};
  static bool broken;
  void (*const kernel)(Nothing) = [](Nothing) { broken = RNNFAST_MUTATION("test.point"); };
  const emulator::Statistics before = emulator::statistics();
  CHECK_CLEAN(run(kernel, Nothing{}, 3, 64));
  const emulator::Statistics after = emulator::statistics();
  CHECK(after.launches == before.launches + 1 && after.fibers == before.fibers + 192, "counts of a launch");
  CHECK(!broken, "no mutation is on");
  emulator::set_mutation("test.point");
  CHECK_CLEAN(run(kernel, Nothing{}, 1, 32));
  CHECK(broken && emulator::mutation_hits() == 32, "%d hits", int(emulator::mutation_hits()));
  emulator::set_mutation("test.other");
  CHECK_CLEAN(run(kernel, Nothing{}, 1, 32));
  CHECK(!broken && emulator::mutation_hits() == 0, "another mutation is on");
  emulator::set_mutation("");
}

}  // namespace
}  // namespace RNNFAST_NAMESPACE
