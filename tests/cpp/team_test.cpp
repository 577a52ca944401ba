// SPDX-License-Identifier: Apache-2.0
// The team under stress: the sanitizers watch.
#include "cpu/team.h"

#include <thread>
#include <vector>

#include "check.h"

using namespace rnnfast;

namespace {

struct Rounds {
  Barrier barrier;
  int rounds = 0;
  std::vector<int> values;
  bool wrong = false;
  std::atomic<bool> mismatch{false};
};

// Each thread writes its cell, and after the barrier reads its neighbour's: plain memory, ordered by the barrier
// alone.
void exchange(void* context, int index, int count) {
  Rounds& r = *static_cast<Rounds*>(context);
  for (int i = 0; i < r.rounds; ++i) {
    r.values[static_cast<size_t>(index)] = i;
    r.barrier.wait(count);
    if (r.values[static_cast<size_t>((index + 1) % count)] != i) r.mismatch = true;
    r.barrier.wait(count);
  }
}

void count_threads(void* context, int, int) { static_cast<std::atomic<int>*>(context)->fetch_add(1); }

}  // namespace

TEST(barrier_orders_memory) {
  for (TeamKind kind : {TeamKind::kStdThread, TeamKind::kSerial}) {
    set_team_kind(kind);
    for (int threads : {1, 2, 3, 8}) {
      Rounds r;
      r.rounds = 2000;
      r.values.assign(8, -1);
      run_team(threads, exchange, &r);
      CHECK(!r.mismatch, "a thread read before its neighbour had written, %d threads", threads);
    }
  }
  set_team_kind(TeamKind::kStdThread);
}

TEST(team_starts_and_ends_thousands_of_times) {
  set_team_kind(TeamKind::kStdThread);
  std::atomic<int> runs{0};
  for (int i = 0; i < 2000; ++i) run_team(3, count_threads, &runs);
  CHECK(runs == 6000, "%d bodies ran", runs.load());
}

TEST(teams_of_several_callers_do_not_meet) {
  std::atomic<int> runs{0};
  std::vector<std::thread> callers;
  for (int i = 0; i < 4; ++i)
    callers.emplace_back([&runs] {
      for (int k = 0; k < 200; ++k) run_team(2, count_threads, &runs);
    });
  for (std::thread& t : callers) t.join();
  CHECK(runs == 1600, "%d bodies ran", runs.load());
}
