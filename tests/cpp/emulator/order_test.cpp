// SPDX-License-Identifier: Apache-2.0
// The race check against the definition: random programs of accesses and barriers run on the emulator, and their
// races are found once more from vector clocks of all threads, kept access by access.
#include <algorithm>
#include <array>
#include <random>
#include <vector>

#include "run.h"

namespace RNNFAST_NAMESPACE {
namespace {

constexpr int kBlocks = 3, kThreads = 64, kAll = kBlocks * kThreads, kBytes = 32;

enum class Op { kAccess, kSyncBlock, kSyncWarp, kArrive, kWait };

struct Step {
  Op op = Op::kAccess;
  bool shared = false, write = false;
  int offset = 0, bytes = 1;  // of an access: a power of two, to which the offset is aligned
};

using Program = std::array<std::vector<Step>, kAll>;

// Every thread of a block, and every lane of a warp, comes to the same barriers; which, differs from block to block
// and warp to warp. Accesses are few, so that some programs have no race.
Program make_program(std::mt19937& random) {
  Program program;
  const auto below = [&](int n) { return static_cast<int>(random() % static_cast<unsigned>(n)); };
  // Some read much and write little, others the reverse.
  const int reads[] = {1, 12, 60}, density = 8 + below(300), writes_one_in = 2 + reads[below(3)];
  const auto accesses = [&](int first, int count) {
    for (int i = first; i < first + count; ++i)
      if (below(density) == 0) {
        const int bytes = 1 << below(5);
        program[static_cast<size_t>(i)].push_back(
            {Op::kAccess, below(2) == 0, below(writes_one_in) == 0, below(kBytes / bytes) * bytes, bytes});
      }
  };
  const auto all = [&](int first, int count, Op op) {
    for (int i = first; i < first + count; ++i) program[static_cast<size_t>(i)].push_back({op});
  };
  const int rounds = 1 + below(3);
  for (int round = 0; round < rounds; ++round)
    for (int block = 0; block < kBlocks; ++block) {
      const int first = block * kThreads;
      const auto inside = [&] {  // a block's own barriers
        for (int steps = below(3); steps > 0; --steps) {
          for (int warp = 0; warp < kThreads; warp += 32)
            for (int syncs = below(3); syncs > 0; --syncs) {
              accesses(first + warp, 32);
              all(first + warp, 32, Op::kSyncWarp);
            }
          accesses(first, kThreads);
          all(first, kThreads, Op::kSyncBlock);
        }
        accesses(first, kThreads);
      };
      inside();
      all(first, kThreads, Op::kArrive);
      inside();
      all(first, kThreads, Op::kWait);
      inside();
    }
  return program;
}

// Clock of a thread: for each thread, how many of its steps are known to have happened before.
using Clock = std::array<int, kAll>;

void join(Clock& into, const Clock& from) {
  for (size_t i = 0; i < into.size(); ++i) into[i] = std::max(into[i], from[i]);
}

class Reference {
 public:
  explicit Reference(const Program& program) : program_(program) {
    for (Clock& clock : clocks_) clock.fill(0);
    position_.fill(0);
  }

  bool has_race() {
    while (advance()) {
    }
    for (size_t i = 0; i < made_.size(); ++i)
      for (size_t k = i + 1; k < made_.size(); ++k)
        if (conflict(made_[i], made_[k])) return true;
    return false;
  }

 private:
  struct Made {
    Step step;
    int thread, time;
    Clock clock;
  };

  static bool conflict(const Made& a, const Made& b) {
    if (a.thread == b.thread || !(a.step.write || b.step.write) || a.step.shared != b.step.shared) return false;
    if (a.step.shared && a.thread / kThreads != b.thread / kThreads) return false;
    if (a.step.offset >= b.step.offset + b.step.bytes || b.step.offset >= a.step.offset + a.step.bytes)
      return false;
    const bool before = b.clock[static_cast<size_t>(a.thread)] >= a.time;
    const bool after = a.clock[static_cast<size_t>(b.thread)] >= b.time;
    return !before && !after;
  }

  const Step* next(int thread) const {
    const std::vector<Step>& steps = program_[static_cast<size_t>(thread)];
    const size_t i = static_cast<size_t>(position_[static_cast<size_t>(thread)]);
    return i < steps.size() ? &steps[i] : nullptr;
  }
  bool all_at(int first, int count, Op op) const {
    for (int i = first; i < first + count; ++i)
      if (!next(i) || next(i)->op != op) return false;
    return true;
  }
  void meet(int first, int count) {
    Clock joined = clocks_[static_cast<size_t>(first)];
    for (int i = first; i < first + count; ++i) join(joined, clocks_[static_cast<size_t>(i)]);
    for (int i = first; i < first + count; ++i) clocks_[static_cast<size_t>(i)] = joined;
  }
  void pass(int first, int count) {
    for (int i = first; i < first + count; ++i)
      clocks_[static_cast<size_t>(i)][static_cast<size_t>(i)] = ++position_[static_cast<size_t>(i)];
  }

  bool advance() {
    bool moved = false;
    for (int i = 0; i < kAll; ++i)
      while (next(i) && next(i)->op == Op::kAccess) {
        pass(i, 1);
        const size_t t = static_cast<size_t>(i);
        made_.push_back({program_[t][static_cast<size_t>(position_[t] - 1)], i, position_[t], clocks_[t]});
        moved = true;
      }
    for (int first = 0; first < kAll; first += 32)
      if (all_at(first, 32, Op::kSyncWarp)) {
        meet(first, 32);
        pass(first, 32);
        moved = true;
      }
    for (int block = 0; block < kBlocks; ++block) {
      const int first = block * kThreads;
      const size_t b = static_cast<size_t>(block);
      if (all_at(first, kThreads, Op::kSyncBlock)) {
        meet(first, kThreads);
      } else if (all_at(first, kThreads, Op::kArrive)) {
        meet(first, kThreads);
        if (arrived_[b] == released_.size()) released_.push_back({Clock{}, 0});
        Released& r = released_[arrived_[b]++];
        join(r.clock, clocks_[static_cast<size_t>(first)]);  // thread 0 arrives
        ++r.blocks;
      } else if (all_at(first, kThreads, Op::kWait) && released_[waited_[b]].blocks == kBlocks) {
        join(clocks_[static_cast<size_t>(first)], released_[waited_[b]++].clock);
        meet(first, kThreads);
      } else {
        continue;
      }
      pass(first, kThreads);
      moved = true;
    }
    return moved;
  }

  struct Released {
    Clock clock;
    int blocks;
  };
  const Program& program_;
  std::array<Clock, kAll> clocks_;
  std::array<int, kAll> position_;
  std::array<size_t, kBlocks> arrived_{}, waited_{};
  std::vector<Released> released_;
  std::vector<Made> made_;
};

struct Play {
  const Program* program;
  unsigned char* exchanged;  // [kBytes]
  unsigned* counter;
};

template <int kSize, class View>
void touch(const View& bytes, const Step& s) {
  if (s.write)
    bytes.template store_pack<kSize>(s.offset, Pack<unsigned char, kSize>{});
  else
    bytes.template load_pack<kSize>(s.offset);
}

template <class View>
void touch(const View& bytes, const Step& s) {
  switch (s.bytes) {
    case 1:
      return touch<1>(bytes, s);
    case 2:
      return touch<2>(bytes, s);
    case 4:
      return touch<4>(bytes, s);
    case 8:
      return touch<8>(bytes, s);
    default:
      return touch<16>(bytes, s);
  }
}

RNNFAST_KERNEL(kThreads, 1) play(Play p) {
  RNNFAST_SHARED(unsigned char, shared, kBytes);
  const ExchangeView<unsigned char> exchanged(p.exchanged, kBytes);
  GridBarrier barrier(p.counter, grid_blocks());
  if (thread_index() < kBytes) shared.store(thread_index(), 0);
  sync_block();
  for (const Step& s : (*p.program)[static_cast<size_t>(block_index() * kThreads + thread_index())]) switch (s.op) {
      case Op::kAccess:
        if (s.shared)
          touch(shared, s);
        else
          touch(exchanged, s);
        break;
      case Op::kSyncBlock:
        sync_block();
        break;
      case Op::kSyncWarp:
        sync_warp();
        break;
      case Op::kArrive:
        barrier.arrive();
        break;
      case Op::kWait:
        barrier.wait();
    }
}

TEST(order_of_random_programs) {
  std::mt19937 random(20);
  int racy = 0, clean = 0;
  for (int i = 0; i < 500; ++i) {
    const Program program = make_program(random);
    const bool expected = Reference(program).has_race();
    ++(expected ? racy : clean);
    for (uint64_t seed = 0; seed < 3; ++seed) {
      emulator::set_seed(seed);
      alignas(16) unsigned char exchanged[kBytes] = {};
      unsigned counter = 0;
      const Status status = run_cooperative(play, Play{&program, exchanged, &counter}, kBlocks, kThreads);
      CHECK(bool(status) != expected && (!expected || status.operation == std::string("race")),
            "program %d of seed 20, order %d: expected %s, got %s", i, int(seed), expected ? "a race" : "none",
            status ? "none" : status.text);
    }
  }
  emulator::set_seed(0);
  CHECK(racy > 100 && clean > 100, "%d racy, %d clean programs", racy, clean);
  std::printf("order_of_random_programs: %d racy, %d clean\n", racy, clean);
}

}  // namespace
}  // namespace RNNFAST_NAMESPACE
