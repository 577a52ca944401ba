// SPDX-License-Identifier: Apache-2.0
// Threads in words: where they are, and what they wait for.
#include "emulator/state.h"

namespace rnnfast::emulator {

std::string describe(const Machine& m, uint64_t stamp) {
  const int block = Stamp::block(stamp);
  const uint64_t barriers = Stamp::block_barriers(stamp);
  std::string text =
      format("thread %d of block (%d, %d) after %llu block, %llu warp", Stamp::thread(stamp),
             block % m.shape.grid_x, block / m.shape.grid_x, static_cast<unsigned long long>(barriers),
             static_cast<unsigned long long>(Stamp::warp_barriers(stamp)));
  int grid = 0;
  if (m.shape.cooperative)
    for (const uint32_t arrival : m.blocks[static_cast<size_t>(block)]->arrivals) grid += arrival <= barriers;
  return text + format(" and %d grid barriers", grid);
}

// "threads 0-30, 64 wait at sync_block; ..." of each block that has not ended.
std::string Machine::deadlock() const {
  const size_t at_once =
      shape.cooperative ? static_cast<size_t>(shape.grid_x) * static_cast<size_t>(shape.grid_y) : 1;
  std::string text = "no thread can go on";
  for (size_t b = 0; b < at_once && text.size() < 900; ++b) {
    const BlockState& block = *blocks[b];
    const auto state = [&](size_t i) -> std::string {
      const FiberThread& t = *block.threads[i];
      switch (t.wait) {
        case Wait::kBlock:
          return "wait at sync_block";
        case Wait::kWarp:
          return format("wait at %s", collective_name(t.collective));
        case Wait::kGrid:
          return format("wait for the grid barrier (%u of %u arrivals)", *t.counter, t.expected);
        default:
          return "have ended";
      }
    };
    text += format("; block (%d, %d):", block.x, block.y);
    for (size_t i = 0; i < block.threads.size() && text.size() < 900;) {
      const std::string mine = state(i);
      size_t end = i + 1;
      while (end < block.threads.size() && state(end) == mine) ++end;
      text += format("%s %zu-%zu %s", i ? "," : " threads", i, end - 1, mine.c_str());
      i = end;
    }
  }
  return text;
}

}  // namespace rnnfast::emulator
