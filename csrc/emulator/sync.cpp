// SPDX-License-Identifier: Apache-2.0
// Barriers: of a block, of a warp, of a grid.
#include <algorithm>
#include <cstring>

#include "emulator/state.h"

namespace rnnfast::emulator {

namespace {

void stamp(FiberThread& t) {
  if (t.block->barriers > Stamp::kMaxBarriers || t.warp->barriers > Stamp::kMaxBarriers)
    fail("race check", "more than %llu barriers in one launch",
         static_cast<unsigned long long>(Stamp::kMaxBarriers));
  t.stamp = Stamp::make(t.block->index, t.index, t.block->barriers, t.warp->barriers);
}

// Knowledge of two, joined.
void join(std::vector<uint32_t>& into, const std::vector<uint32_t>& from) {
  if (into.size() < from.size()) into.resize(from.size(), 0);
  for (size_t i = 0; i < from.size(); ++i) into[i] = std::max(into[i], from[i]);
}

}  // namespace

const char* collective_name(Collective collective) {
  switch (collective) {
    case Collective::kSyncWarp:
      return "sync_warp";
    case Collective::kShuffle:
      return "shuffle";
    case Collective::kBallot:
      return "ballot";
    case Collective::kLoadMatrices:
      return "load_matrices";
    case Collective::kNone:
      return "nothing";
    default:
      return "mma";
  }
}

void sync_block() {
  Machine& m = machine();
  BlockState& block = *m.running->block;
  if (++block.arrived < m.shape.block) return m.wait(Wait::kBlock);
  block.arrived = 0;
  ++block.barriers;
  join(block.seen, block.acquired);
  for (FiberThread* t : block.threads) {
    stamp(*t);
    m.make_ready(t);
  }
  m.yield();
}

// Counts the lane in. The last one runs `complete`, then all are ready, in any order.
template <class Complete>
static void meet(Collective collective, const Complete& complete) {
  Machine& m = machine();
  FiberThread& self = *m.running;
  WarpState& warp = *self.warp;
  if (warp.arrived == 0)
    warp.collective = collective;
  else if (warp.collective != collective)
    fail("divergence", "thread %d of block (%d, %d) has come to %s, other lanes of its warp wait at %s", self.index,
         self.block_x, self.block_y, collective_name(collective), collective_name(warp.collective));
  self.collective = collective;
  if (++warp.arrived < kWarpLanes) return m.wait(Wait::kWarp);
  warp.arrived = 0;
  complete();
  for (int lane = 0; lane < kWarpLanes; ++lane) {
    FiberThread* const t = self.block->threads[static_cast<size_t>(warp.first + lane)];
    if (collective == Collective::kSyncWarp) stamp(*t);
    m.make_ready(t);
  }
  m.yield();
}

void sync_warp() {
  WarpState& warp = *machine().running->warp;
  meet(Collective::kSyncWarp, [&] { ++warp.barriers; });
}

const Operands* exchange(Collective collective, const Operands& mine) {
  FiberThread& self = *machine().running;
  WarpState& warp = *self.warp;
  Operands* const all = warp.operands[warp.turn];
  all[self.index % kWarpLanes] = mine;
  meet(collective, [&] {
    if (collective >= Collective::kMmaHalf16 && collective <= Collective::kMmaTf32)
      multiply(collective, all, warp.product[warp.turn]);
    warp.turn ^= 1;
  });
  return all;
}

void grid_arrive(unsigned* counter, unsigned blocks) {
  Machine& m = machine();
  FiberThread& self = *m.running;
  if (self.index != 0) return;
  if (!m.shape.cooperative) fail("grid barrier", "in a launch that is not cooperative");
  GridCounter& c = m.counters[counter];
  if (c.blocks == 0) {
    if (*counter != 0) fail("grid barrier", "counter is %u when the launch begins, not 0", *counter);
    c.blocks = blocks;
    c.released.assign(m.blocks.size(), 0);
  }
  BlockState& block = *self.block;
  if (c.blocks != blocks)
    fail("grid barrier", "block (%d, %d) believes that %u blocks share it, another %u", block.x, block.y, blocks,
         c.blocks);
  GridRounds& rounds = c.rounds_of_block[block.index];
  if (rounds.arrived != rounds.waited)
    fail("grid barrier", "block (%d, %d) arrives again without having waited for the others", block.x, block.y);
  ++rounds.arrived;
  block.arrivals.push_back(static_cast<uint32_t>(block.barriers));
  // Released: what this block did before its last barrier, and all that it had acquired by then.
  join(c.released, block.seen);
  const size_t own = static_cast<size_t>(block.index);
  c.released[own] = std::max(c.released[own], static_cast<uint32_t>(block.barriers));
  ++*counter;
  if (++c.arrived % blocks != 0) return;
  c.of_round.push_back(c.released);
  for (size_t i = 0; i < c.waiting.size();) {
    if (static_cast<int>(*counter - c.waiting[i]->expected) >= 0) {
      m.make_ready(c.waiting[i]);
      c.waiting[i] = c.waiting.back();
      c.waiting.pop_back();
    } else {
      ++i;
    }
  }
}

void grid_wait(unsigned* counter, unsigned expected) {
  Machine& m = machine();
  FiberThread& self = *m.running;
  if (self.index != 0) return;
  GridCounter& c = m.counters[counter];
  if (c.blocks == 0 || expected == 0 || expected % c.blocks != 0)
    fail("grid barrier", "waits for %u arrivals, which is no multiple of the %u blocks that share it", expected,
         c.blocks);
  if (static_cast<int>(*counter - expected) < 0) {
    self.counter = counter;
    self.expected = expected;
    c.waiting.push_back(&self);
    m.wait(Wait::kGrid);
  }
  // Of this round alone: what faster blocks have released since may as well come later.
  join(self.block->acquired, c.of_round[expected / c.blocks - 1]);
  c.rounds_of_block[self.block->index].waited = expected / c.blocks;
}

}  // namespace rnnfast::emulator
