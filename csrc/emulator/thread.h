// SPDX-License-Identifier: Apache-2.0
// A CUDA thread as the kernel sees it, and the barriers it may reach.
#pragma once

#include <cstdint>

namespace rnnfast::emulator {

constexpr int kWarpLanes = 32;

struct BlockState;
struct WarpState;

struct Thread {
  int index = 0, block_threads = 0;
  int block_x = 0, block_y = 0, grid_x = 1, grid_y = 1;
  uint64_t stamp = 0;  // block, thread and barriers passed, as the race check keeps them (shadow.h)
  BlockState* block = nullptr;
  WarpState* warp = nullptr;
};

// The thread that runs, null outside of a kernel. Not thread_local, whose access would be a call.
extern __thread const Thread* current_thread __attribute__((tls_model("initial-exec")));

inline const Thread& thread() { return *current_thread; }

void sync_block();
void sync_warp();

// The counter of a barrier of `blocks` blocks. Thread 0 of a block adds its arrival, or waits until the counter has
// reached `expected`; the other threads pass by.
void grid_arrive(unsigned* counter, unsigned blocks);
void grid_wait(unsigned* counter, unsigned expected);

// Ends the launch with this report. printf's format.
[[noreturn]] void fail(const char* operation, const char* format, ...) __attribute__((format(printf, 2, 3)));

}  // namespace rnnfast::emulator
