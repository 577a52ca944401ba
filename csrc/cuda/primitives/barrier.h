// SPDX-License-Identifier: Apache-2.0
// A barrier of some blocks of a cooperative launch: a counter in global memory that only grows. What a block wrote
// before arrive() is seen by all after their wait().
#pragma once

#include "cuda/primitives/platform.h"

namespace RNNFAST_NAMESPACE {

class GridBarrier {
 public:
  // counter: zero when the launch begins, one for each group of blocks; blocks: how many share it.
  RNNFAST_DEVICE GridBarrier(unsigned* counter, int blocks)
      : counter_(counter), blocks_(static_cast<unsigned>(blocks)) {}

  // All threads of the block. Between arrive and wait the block may do what concerns no other.
  RNNFAST_DEVICE void arrive() {
    sync_block();
    expected_ += blocks_;
#if defined(__CUDACC__)
    if (threadIdx.x == 0) asm volatile("red.release.gpu.global.add.u32 [%0], 1;" ::"l"(counter_) : "memory");
#else
    emulator::grid_arrive(counter_, blocks_);
#endif
  }

  RNNFAST_DEVICE void wait() {
#if defined(__CUDACC__)
    if (threadIdx.x == 0) {
      unsigned seen;
      do {
        asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(seen) : "l"(counter_) : "memory");
      } while (static_cast<int>(seen - expected_) < 0);
    }
#else
    emulator::grid_wait(counter_, expected_);
#endif
    sync_block();
  }

 private:
  unsigned* counter_;
  unsigned blocks_, expected_ = 0;
};

}  // namespace RNNFAST_NAMESPACE
