// SPDX-License-Identifier: Apache-2.0
// A launch as it runs: blocks, warps, fibers, and who waits for what.
#pragma once

#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "cuda/plan.h"
#include "emulator/fiber.h"
#include "emulator/machine.h"
#include "emulator/shadow.h"
#include "emulator/warp.h"

namespace rnnfast::emulator {

constexpr int kMaxBlockThreads = 1024, kMaxStaticShared = 48 * 1024;

struct Settings {
  CudaDevice device;
  uint64_t seed;
  bool race_check;
};
Settings settings();
uint64_t next_launch_number();
void count_launch(const Statistics& launch);
const char* keep_text(const std::string& text);  // for as long as the process lives

enum class Wait { kNothing, kBlock, kWarp, kGrid, kEnded };

struct FiberThread : Thread {
  Fiber fiber;
  Wait wait = Wait::kNothing;
  Collective collective = Collective::kNone;  // of Wait::kWarp
  unsigned* counter = nullptr;                // of Wait::kGrid
  unsigned expected = 0;
};

struct WarpState {
  int first = 0, arrived = 0, turn = 0;  // first: thread of the block
  uint64_t barriers = 0;
  Collective collective = Collective::kNone;
  // Two turns: a lane may leave its operands for the next collective before another has read this one's.
  Operands operands[2][kWarpLanes];
  float product[2][16 * 8];
};

struct StaticArray {
  const void* key;
  int64_t offset, bytes;
};

struct BlockState {
  int x = 0, y = 0, index = 0;
  int arrived = 0;
  uint64_t barriers = 0;
  std::vector<FiberThread*> threads;
  std::vector<WarpState> warps;
  // Dynamic shared memory first, then the static arrays as threads reach them.
  std::unique_ptr<char[]> shared;
  int64_t shared_size = 0, shared_used = 0;
  std::vector<StaticArray> statics;
  Shadow shadow;
  // Barriers of other blocks known to have happened before, and what thread 0 has acquired since the last barrier
  // of this block, which hands it to the others.
  std::vector<uint32_t> seen, acquired;
  std::vector<uint32_t> arrivals;  // at grid barriers: the block's barriers passed then
};

struct GridRounds {
  unsigned arrived = 0, waited = 0;
};

struct GridCounter {
  unsigned blocks = 0, arrived = 0;
  std::vector<uint32_t> released;               // by all arrivals so far
  std::vector<std::vector<uint32_t>> of_round;  // by those of each completed round
  std::unordered_map<int, GridRounds> rounds_of_block;
  std::vector<FiberThread*> waiting;
};

// One OS thread's machine; kept from launch to launch for its memory.
struct Machine {
  Shape shape;
  Settings set;
  const char* what = nullptr;
  uint64_t number = 0;  // of the launch, in the process
  void (*body)(const void*) = nullptr;
  const void* argument = nullptr;

  StackPool stacks;
  Fiber origin;  // the OS thread's own
  std::vector<FiberThread> threads;
  std::vector<std::unique_ptr<BlockState>> blocks;
  std::vector<FiberThread*> ready;
  FiberThread* running = nullptr;
  size_t alive = 0;
  uint64_t random = 0;
  Shadow exchange;
  std::unordered_map<unsigned*, GridCounter> counters;
  Statistics count;
  Outcome outcome;

  uint64_t next_random();
  Outcome launch();
  void begin_block(BlockState& block, int index, size_t first_thread);
  void run();
  void make_ready(FiberThread* thread);
  FiberThread* take_ready();
  // Runs another thread until this one is ready again, or for good.
  void wait(Wait what);
  void yield();  // lets any ready thread run, this one if it is ready and drawn
  void end();    // of the running thread
  [[noreturn]] void stop(const char* operation, const std::string& text);
  std::string deadlock() const;
};

extern __thread Machine* current_machine __attribute__((tls_model("initial-exec")));
[[noreturn]] void no_launch();
inline Machine& machine() {  // of the launch that runs
  if (!current_machine) no_launch();
  return *current_machine;
}

const char* collective_name(Collective collective);
void multiply(Collective collective, const Operands* lanes, float* c);  // C [16, 8] += A B of a warp
std::string describe(const Machine& machine, uint64_t stamp);
std::string format(const char* format, ...) __attribute__((format(printf, 1, 2)));

}  // namespace rnnfast::emulator
