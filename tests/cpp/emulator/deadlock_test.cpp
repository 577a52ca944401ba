// SPDX-License-Identifier: Apache-2.0
// Barriers that not all reach, collectives of half a warp, waits that nobody ends: each with who waits where.
#include "run.h"

namespace RNNFAST_NAMESPACE {
namespace {

struct Mode {
  unsigned* counter;
  int mode;
};

RNNFAST_KERNEL(64, 1) get_stuck(Mode p) {
  const int i = thread_index();
  GridBarrier barrier(p.counter, grid_blocks());
  switch (p.mode) {
    case 0:  // some have ended
      if (i >= 48) return;
      sync_block();
      return;
    case 1:  // half of a warp
      if (i % 32 < 16) sync_warp();
      return;
    case 2:
      if (i != 3) shuffle_xor(1.0f, 1);
      return;
    case 3:  // one waits in the warp, the others in the block
      if (i / 32 == 1 && i != 40) sync_warp();
      sync_block();
      return;
    case 4:  // two collectives of one warp
      if (i % 32 < 20)
        sync_warp();
      else
        any_lane(true);
      return;
    case 5:  // one block does not arrive
      if (block_index() == 1) return;
      barrier.arrive();
      barrier.wait();
      return;
    case 6:  // waits for a barrier at which it has not arrived
      barrier.arrive();
      barrier.wait();
      barrier.wait();
      emulator::grid_wait(p.counter, 4);
      return;
    case 7:  // arrives twice
      barrier.arrive();
      barrier.arrive();
      return;
    case 8:
      if (block_index() == 1) {
        GridBarrier other(p.counter, 3);
        other.arrive();
      } else {
        barrier.arrive();
      }
      return;
    default:
      emulator::grid_wait(p.counter, 3);
  }
}

Status run_mode(int mode, bool cooperative = true, unsigned counter = 0) {
  const Mode p{&counter, mode};
  return cooperative ? run_cooperative(get_stuck, p, 2, 64) : run(get_stuck, p, 2, 64);
}

TEST(deadlock_reports) {
  FOR_SEEDS {
    CHECK_REPORT(run_mode(0), "deadlock", "block (0, 0): threads 0-47 wait at sync_block, 48-63 have ended");
    CHECK_REPORT(run_mode(1), "deadlock",
                 "threads 0-15 wait at sync_warp, 16-31 have ended, 32-47 wait at sync_warp, 48-63 have ended");
    CHECK_REPORT(run_mode(2), "deadlock", "threads 0-2 wait at shuffle, 3-3 have ended, 4-31 wait at shuffle");
    CHECK_REPORT(run_mode(3), "deadlock",
                 "threads 0-31 wait at sync_block, 32-39 wait at sync_warp, 40-40 wait at sync_block, 41-63");
    CHECK_REPORT(run_mode(4), "divergence", "other lanes of its warp wait at");
    CHECK_REPORT(run_mode(5), "deadlock",
                 "block (0, 0): threads 0-0 wait for the grid barrier (1 of 2 arrivals), 1-63 wait at sync_block");
    CHECK_REPORT(run_mode(6), "deadlock", "wait for the grid barrier (2 of 4 arrivals)");
    CHECK_REPORT(run_mode(7), "grid barrier", "arrives again without having waited");
    CHECK_REPORT(run_mode(8), "grid barrier", "blocks share it");
    CHECK_REPORT(run_mode(9), "grid barrier", "no multiple of the 0 blocks");
    CHECK_REPORT(run_mode(5, false), "grid barrier", "in a launch that is not cooperative");
    CHECK_REPORT(run_mode(5, true, 7), "grid barrier", "counter is 7 when the launch begins, not 0");
  }
}

// After a launch that failed, the next begins afresh.
TEST(deadlock_leaves_nothing) {
  struct Nothing {
    int* ended;
  };
  void (*const kernel)(Nothing) = [](Nothing p) {
    sync_block();
    sync_warp();
    ++*p.ended;
  };
  for (int i = 0; i < 3; ++i) {
    CHECK(!run_mode(3), "a deadlock");
    int ended = 0;
    CHECK_CLEAN(run(kernel, Nothing{&ended}, 2, 64));
    CHECK(ended == 128, "%d threads have ended", ended);
  }
}

}  // namespace
}  // namespace RNNFAST_NAMESPACE
