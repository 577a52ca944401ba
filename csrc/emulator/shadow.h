// SPDX-License-Identifier: Apache-2.0
// The race check's memory: who last wrote each byte that threads share, and who has read it since.
//
// A stamp says who made an access and which barriers it had passed then. Only barriers order, so the stamps of two
// accesses, and what the later one's block has acquired of the earlier one's at grid barriers, decide whether one
// happened before the other, in whatever order the fibers ran.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "emulator/views.h"

namespace rnnfast::emulator {

// From the high end: 15 bits block, 10 bits thread, 19 bits barriers of the block passed, 19 bits barriers of the
// warp passed, plus one: no stamp is 0. The highest bit is free.
struct Stamp {
  static constexpr int kWarpBits = 19, kBlockBits = 19, kThreadBits = 10;
  static constexpr uint64_t kMaxBarriers = (1u << kWarpBits) - 2;
  static constexpr int kMaxBlocks = 1 << 15;

  static uint64_t make(int block, int thread, uint64_t block_barriers, uint64_t warp_barriers) {
    return ((static_cast<uint64_t>(block) << kThreadBits | static_cast<uint64_t>(thread)) << kBlockBits |
            block_barriers)
               << kWarpBits |
           (warp_barriers + 1);
  }
  static uint64_t warp_barriers(uint64_t s) { return (s & ((1u << kWarpBits) - 1)) - 1; }
  static uint64_t block_barriers(uint64_t s) { return s >> kWarpBits & ((1u << kBlockBits) - 1); }
  static int thread(uint64_t s) {
    return static_cast<int>(s >> (kWarpBits + kBlockBits) & ((1u << kThreadBits) - 1));
  }
  static int block(uint64_t s) { return static_cast<int>(s >> (kWarpBits + kBlockBits + kThreadBits) & 0x7fff); }
  // Of the same block, with as many of its barriers passed; likewise of the same warp.
  static bool same_phase(uint64_t a, uint64_t b) {
    constexpr uint64_t kThread = ((1u << kThreadBits) - 1ull) << (kWarpBits + kBlockBits);
    return ((a ^ b) & ~kThread) >> kWarpBits == 0;
  }
  static bool same_warp(uint64_t a, uint64_t b) { return (a ^ b) >> (kWarpBits + kBlockBits + 5) == 0; }
  static bool same_thread(uint64_t a, uint64_t b) { return (a ^ b) >> (kWarpBits + kBlockBits) == 0; }
};

// What an accessing thread knows. seen[b]: how many barriers of block b have happened before, as far as it has
// acquired them at grid barriers.
struct Observer {
  uint64_t stamp;
  const std::vector<uint32_t>* seen;
};

// What an access ran into; stamp 0: memory that was never written.
struct Conflict {
  uint64_t stamp = 0;
  Access earlier = Access::kRead;
};

// The accesses to memory of one kind (a block's shared memory, or all that blocks exchange).
class Shadow {
 public:
  Shadow();
  ~Shadow();
  Shadow(const Shadow&) = delete;
  Shadow& operator=(const Shadow&) = delete;

  void clear();  // forgets everything; keeps its memory
  // False: into what it ran. must_be_written: that includes reading what nobody wrote.
  bool access(const Observer& who, Access access, uintptr_t address, int bytes, bool must_be_written,
              Conflict& conflict);

 private:
  // Who read since the last write: two stamps of one block in one phase (between two barriers of the block). Two
  // are enough to convict any writer that has not passed a barrier since: see add_reader.
  struct Readers {
    uint64_t first = 0, second = 0;
  };
  // first with this bit: the low bits are an index into many_, where every block has its own.
  static constexpr uint64_t kMany = 1ull << 63;
  struct Cell {
    uint64_t writer = 0;
    Readers readers;
  };
  // Cells of 2^shift bytes each; halved when an access is smaller or begins between two.
  struct Page {
    uintptr_t key = 0;
    int shift = 4;
    std::vector<Cell> cells;
  };
  static constexpr int kPageShift = 10;

  static bool ordered(uint64_t earlier, const Observer& who);
  // Of two warps already: any writer in this phase is convicted, whoever else reads.
  static bool saturated(const Readers& readers, uint64_t stamp);
  static void add_reader(Readers& readers, uint64_t stamp);
  void read(Cell& cell, const Observer& who);
  size_t take_many();
  // A reader since the last write that is not ordered before; 0: none.
  uint64_t find_reader(const Cell& cell, const Observer& who) const;
  Page& page(uintptr_t key);
  void halve(Page& page);

  std::vector<Page*> table_;  // hash by key, open addressing; a power of two
  std::vector<std::unique_ptr<Page>> pages_;
  size_t used_ = 0;
  Page* last_ = nullptr;
  std::vector<std::vector<Readers>> many_;  // by block
  std::vector<size_t> free_;                // indices of many_ that no cell has
};

}  // namespace rnnfast::emulator
