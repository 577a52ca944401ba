// SPDX-License-Identifier: Apache-2.0
// A race of every kind is found in every order of the threads; the same kernel with its barrier is clean.
#include <vector>

#include "run.h"

namespace RNNFAST_NAMESPACE {
namespace {

enum class Kind { kReadWrite, kWriteRead, kWriteWrite };
enum class Place { kWarp, kBlock };
enum class Barrier { kNone, kWarp, kBlock };

struct Shared {
  Kind kind;
  Place place;
  Barrier barrier;
  float* out;
};

// Threads 3 (first) and, of the same warp or another, 7 or 40 (second) use one value of shared memory.
RNNFAST_KERNEL(64, 1) share(Shared p) {
  RNNFAST_SHARED(float, x, 4);
  if (thread_index() == 0) x.store(2, 1);
  sync_block();
  const int second = p.place == Place::kWarp ? 7 : 40;
  float seen = 0;
  if (thread_index() == 3) {
    if (p.kind == Kind::kReadWrite)
      seen = x.load(2);
    else
      x.store(2, 5);
  }
  if (p.barrier == Barrier::kWarp) sync_warp();
  if (p.barrier == Barrier::kBlock) sync_block();
  if (thread_index() == second) {
    if (p.kind == Kind::kWriteRead)
      seen = x.load(2);
    else
      x.store(2, 5);  // the same value: a race all the same
  }
  if (seen != 0) p.out[0] = seen;
}

TEST(race_shared) {
  float out;
  FOR_SEEDS for (const Kind kind :
                 {Kind::kReadWrite, Kind::kWriteRead,
                  Kind::kWriteWrite}) for (const Place place :
                                           {Place::kWarp, Place::kBlock}) for (const Barrier barrier :
                                                                               {Barrier::kNone, Barrier::kWarp,
                                                                                Barrier::kBlock}) {
    const Status status = run(share, Shared{kind, place, barrier, &out}, 1, 64);
    if (barrier == Barrier::kBlock || (barrier == Barrier::kWarp && place == Place::kWarp)) {
      CHECK_CLEAN(status);
      continue;
    }
    CHECK_REPORT(status, "race", "static shared array 0, byte 8 (value 2 of a view of 4, 4 bytes)");
    CHECK_REPORT(status, "race", "thread 3 of block (0, 0) after 1 block, ");
    CHECK_REPORT(status, "race", place == Place::kWarp ? "thread 7 of block" : "thread 40 of block");
    if (kind == Kind::kWriteWrite) CHECK(!contains(status.text, "read by"), "%s", status.text);
    if (kind != Kind::kWriteWrite) CHECK(contains(status.text, "read by"), "%s", status.text);
  }
}

struct Exchange {
  Kind kind;
  int barriers;  // grid barriers between the two accesses
  float* x;      // [4]
  unsigned* counter;
  bool while_waiting;  // the first access between arrive and wait
};

RNNFAST_KERNEL(64, 1) exchange_blocks(Exchange p) {
  const ExchangeView<float> x(p.x, 4);
  GridBarrier barrier(p.counter, grid_blocks());
  const auto first = [&] {
    if (block_index() != 1 || thread_index() != 33) return;
    if (p.kind == Kind::kReadWrite)
      x.load(3);
    else
      x.store(3, 2);
  };
  if (!p.while_waiting) first();
  for (int i = 0; i < p.barriers; ++i) {
    barrier.arrive();
    if (p.while_waiting && i == 0) first();
    barrier.wait();
  }
  if (block_index() == 2 && thread_index() == 5) {
    if (p.kind == Kind::kWriteRead)
      x.load(3);
    else
      x.store(3, 2);
  }
}

TEST(race_exchange) {
  FOR_SEEDS for (const Kind kind : {Kind::kReadWrite, Kind::kWriteRead,
                                    Kind::kWriteWrite}) for (const bool while_waiting :
                                                             {false, true}) for (const int barriers : {0, 1, 2}) {
    if (while_waiting && barriers == 0) continue;
    std::vector<float> x(4, 1);
    unsigned counter = 0;
    const Status status =
        run_cooperative(exchange_blocks, Exchange{kind, barriers, x.data(), &counter, while_waiting}, 3, 64);
    // After arrive() the block's accesses are no more what the arrival has announced.
    if (barriers >= (while_waiting ? 2 : 1)) {
      CHECK_CLEAN(status);
      continue;
    }
    CHECK_REPORT(status, "race", "an exchange buffer (value 3 of a view of 4, 4 bytes)");
    CHECK_REPORT(status, "race", "thread 33 of block (1, 0)");
    CHECK_REPORT(status, "race", "thread 5 of block (2, 0)");
    if (while_waiting) CHECK_REPORT(status, "race", "and 1 grid barriers");
  }
}

// Blocks of an ordinary launch have no order at all.
TEST(race_ordinary_blocks) {
  std::vector<float> x(4, 1);
  struct P {
    float* x;
    int stride;
  };
  void (*const kernel)(P) = [](P p) {
    if (thread_index() == 0) ExchangeView<float>(p.x, 4).store(block_index() * p.stride, 1);
  };
  CHECK_CLEAN(run(kernel, P{x.data(), 1}, 3, 32));
  CHECK_REPORT(run(kernel, P{x.data(), 0}, 3, 32), "race", "write by thread 0 of block");
}

// Two barriers of two groups of blocks; a third that joins them orders transitively.
struct Chain {
  float* x;
  unsigned* counters;  // [2]
  bool joined;
};

RNNFAST_KERNEL(32, 1) chain(Chain p) {
  const ExchangeView<float> x(p.x, 1);
  const auto meet = [](unsigned* counter) {
    GridBarrier barrier(counter, 2);
    barrier.arrive();
    barrier.wait();
  };
  const bool one = thread_index() == 9;
  if (block_index() == 0) {
    if (one) x.store(0, 1);
    meet(p.counters);
  } else if (block_index() == 1) {
    if (p.joined) meet(p.counters);
    meet(p.counters + 1);
    if (!p.joined) meet(p.counters);
  } else {
    meet(p.counters + 1);
    if (one) x.store(0, 2);
  }
}

TEST(race_is_transitive) {
  FOR_SEEDS for (const bool joined : {true, false}) {
    float x = 0;
    unsigned counters[2] = {0, 0};
    const Status status = run_cooperative(chain, Chain{&x, counters, joined}, 3, 32);
    if (joined)
      CHECK_CLEAN(status);
    else
      CHECK_REPORT(status, "race", "write by thread 9 of block");
  }
}

// Views of different types over the same bytes.
struct Overlap {
  int half;  // index of the 16-bit value that thread 1 writes
};

RNNFAST_KERNEL(32, 1) overlap(Overlap p) {
  const SharedView<float> wide = dynamic_shared<float>(0, 8);
  const SharedView<Half> narrow_view = dynamic_shared<Half>(0, 16);
  const SharedView<unsigned char> bytes = dynamic_shared<unsigned char>(0, 32);
  if (thread_index() == 0) {
    wide.store_pack<4>(0, Pack<float, 4>{});
    bytes.store(18, 1);
  }
  if (thread_index() == 1) narrow_view.store(p.half, Half{0});
  if (thread_index() == 2) bytes.store(19, 1);
}

TEST(race_overlapping_views) {
  FOR_SEEDS {
    CHECK_CLEAN(run(overlap, Overlap{8}, 1, 32, 32));
    CHECK_CLEAN(run(overlap, Overlap{15}, 1, 32, 32));
    CHECK_REPORT(run(overlap, Overlap{7}, 1, 32, 32), "race", "dynamic shared memory, byte");
    CHECK_REPORT(run(overlap, Overlap{0}, 1, 32, 32), "race", "write by thread 1");
    CHECK_REPORT(run(overlap, Overlap{9}, 1, 32, 32), "race", "thread 1 of");
  }
}

// A value that all read, also across warps and blocks, is written after a barrier that is missing for one reader.
struct Readers {
  float* x;
  unsigned* counter;
  int late;  // the reader that reads after the barrier
};

RNNFAST_KERNEL(64, 1) many_readers(Readers p) {
  const ExchangeView<float> x(p.x, 1);
  GridBarrier barrier(p.counter, grid_blocks());
  const int me = block_index() * 64 + thread_index();
  if (me != p.late) x.load(0);
  barrier.arrive();
  if (me == p.late) x.load(0);
  barrier.wait();
  if (me == 70) x.store(0, 1);
}

TEST(race_many_readers) {
  FOR_SEEDS for (const int late : {-1, 0, 5, 63, 64, 66, 100, 128, 191}) {
    float x = 0;
    unsigned counter = 0;
    const Status status = run_cooperative(many_readers, Readers{&x, &counter, late}, 3, 64);
    if (late < 0 || (late >= 64 && late < 128)) {  // the writer's own block: wait() has a barrier of the block
      CHECK_CLEAN(status);
    } else {
      const std::string reader =
          "read by thread " + std::to_string(late % 64) + " of block (" + std::to_string(late / 64) + ", 0)";
      CHECK_REPORT(status, "race", reader.c_str());
    }
  }
}

struct Few {
  int readers[3], writer;
  bool sync;  // of each warp, between reading and writing
};

RNNFAST_KERNEL(64, 1) few_readers(Few p) {
  RNNFAST_SHARED(float, x, 1);
  if (thread_index() == 0) x.store(0, 1);
  sync_block();
  for (const int reader : p.readers)
    if (thread_index() == reader) x.load(0);
  if (p.sync) sync_warp();
  if (thread_index() == p.writer) x.store(0, 2);
}

// Any reader but the writer itself is a race; with sync_warp, any of the other warp.
TEST(race_few_readers) {
  const int threads[] = {1, 2, 33, 34};
  FOR_SEEDS for (const int a : threads) for (const int b :
                                             threads) for (const int c :
                                                           threads) for (const int writer :
                                                                         {1, 2, 33}) for (const bool sync :
                                                                                          {false, true}) {
    bool race = false;
    for (const int reader : {a, b, c}) race |= reader != writer && !(sync && reader / 32 == writer / 32);
    const Status status = run(few_readers, Few{{a, b, c}, writer, sync}, 1, 64);
    CHECK(bool(status) != race, "readers %d %d %d, writer %d, sync_warp %d: %s", a, b, c, writer, sync,
          status ? "clean" : status.text);
  }
}

// Block 0 is a round ahead when block 1 comes to the end of the first: what it has released by then block 1 must
// still not count on.
RNNFAST_KERNEL(32, 1) run_ahead(Chain p) {
  const ExchangeView<float> x(p.x, 1);
  GridBarrier barrier(p.counters, 2);
  barrier.arrive();
  for (int i = 0; block_index() == 1 && i < 100; ++i) sync_block();
  barrier.wait();
  const bool one = thread_index() == 9;
  if (block_index() == 0 && one) x.store(0, 1);
  if (block_index() == 1 && one && !p.joined) x.load(0);
  barrier.arrive();
  barrier.wait();
  if (block_index() == 1 && one && p.joined) x.load(0);
}

TEST(race_with_a_block_ahead) {
  FOR_SEEDS for (const bool joined : {false, true}) {
    float x = 0;
    unsigned counter = 0;
    const Status status = run_cooperative(run_ahead, Chain{&x, &counter, joined}, 2, 32);
    if (joined)
      CHECK_CLEAN(status);
    else
      CHECK_REPORT(status, "race", "read by thread 9 of block (1, 0)");
  }
}

TEST(race_check_off) {
  emulator::set_race_check(false);
  float out;
  CHECK_CLEAN(run(share, Shared{Kind::kWriteWrite, Place::kBlock, Barrier::kNone, &out}, 1, 64));
  emulator::set_race_check(true);
}

}  // namespace
}  // namespace RNNFAST_NAMESPACE
