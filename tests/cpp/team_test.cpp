// SPDX-License-Identifier: Apache-2.0
// The team under stress: the sanitizers watch.
#include "cpu/team.h"

#include <unistd.h>

#include <chrono>
#include <thread>
#include <vector>

#include "check.h"

using namespace rnnfast;

namespace {

struct Rounds {
  Barrier barrier;
  int rounds = 0;
  std::vector<int> values;
  std::vector<int64_t> sinks;
  std::atomic<int> ran{0};
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

// As exchange; between the barriers each thread computes for another time, and now and then one sleeps for longer
// than any barrier spins, so that the others sleep too and must be woken.
void exchange_unevenly(void* context, int index, int count) {
  Rounds& r = *static_cast<Rounds*>(context);
  uint32_t random = 12345u + 977u * static_cast<uint32_t>(index);
  for (int i = 0; i < r.rounds; ++i) {
    random = random * 1664525u + 1013904223u;
    int64_t sink = 0;
    for (uint32_t k = 0; k < random >> 23; ++k) sink += k ^ random;
    r.sinks[static_cast<size_t>(index)] += sink;
    if (i % 16 == 15 && i / 16 % count == index) std::this_thread::sleep_for(std::chrono::microseconds(500));
    r.values[static_cast<size_t>(index)] = i;
    r.barrier.wait(count);
    for (int other = 0; other < count; ++other)
      if (r.values[static_cast<size_t>(other)] != i) r.mismatch = true;
    r.barrier.wait(count);
  }
  r.ran.fetch_add(1);
}

// A sleeper that nobody wakes would hang: end with a signal instead.
class Watchdog {
 public:
  Watchdog() { alarm(240); }
  ~Watchdog() { alarm(0); }
};

// The bodies that this build can run on several threads; ThreadSanitizer does not understand OpenMP's.
std::vector<TeamKind> parallel_kinds() {
#ifdef _OPENMP
  return {TeamKind::kStdThread, TeamKind::kOpenMP};
#else
  return {TeamKind::kStdThread};
#endif
}

class KindGuard {
 public:
  KindGuard() : before_(team_kind()) {}
  ~KindGuard() { set_team_kind(before_); }

 private:
  TeamKind before_;
};

void count_threads(void* context, int, int) { static_cast<std::atomic<int>*>(context)->fetch_add(1); }

}  // namespace

TEST(barrier_orders_memory) {
  const KindGuard guard;
  const Watchdog watchdog;
  for (TeamKind kind : {TeamKind::kStdThread, TeamKind::kSerial}) {
    set_team_kind(kind);
    for (int threads : {1, 2, 3, 8}) {
      Rounds r;
      r.rounds = 500;
      r.values.assign(8, -1);
      run_team(threads, exchange, &r);
      CHECK(!r.mismatch, "a thread read before its neighbour had written, %d threads", threads);
    }
  }
}

TEST(barrier_wakes_sleepers_under_uneven_work) {
  const KindGuard guard;
  const Watchdog watchdog;
  for (TeamKind kind : parallel_kinds()) {
    set_team_kind(kind);
    for (int threads : {2, 3, 7, 16}) {
      Rounds r;
      r.rounds = 96;
      r.values.assign(16, -1);
      r.sinks.assign(16, 0);
      run_team(threads, exchange_unevenly, &r);
      CHECK(!r.mismatch, "a thread read before another had written, %d threads", threads);
      CHECK(r.ran == threads, "%d of %d threads ran", r.ran.load(), threads);
    }
  }
}

TEST(team_starts_and_ends_thousands_of_times) {
  const KindGuard guard;
  const Watchdog watchdog;
  for (TeamKind kind : parallel_kinds()) {
    set_team_kind(kind);
    std::atomic<int> runs{0};
    for (int i = 0; i < 2000; ++i) run_team(3, count_threads, &runs);
    CHECK(runs == 6000, "%d bodies ran", runs.load());
  }
}

// As layers do: a fresh barrier for each run, several waits, the thread count changing from run to run.
TEST(team_runs_thousands_of_times_with_barriers) {
  const KindGuard guard;
  const Watchdog watchdog;
  for (TeamKind kind : parallel_kinds()) {
    set_team_kind(kind);
    for (int i = 0; i < 1000; ++i) {
      Rounds r;
      r.rounds = 3;
      r.values.assign(8, -1);
      run_team(1 + i % 5, exchange, &r);
      CHECK(!r.mismatch, "run %d: a thread read before its neighbour had written", i);
    }
  }
}

TEST(teams_of_several_callers_do_not_meet) {
  const KindGuard guard;
  const Watchdog watchdog;
  for (TeamKind kind : parallel_kinds()) {
    set_team_kind(kind);
    std::atomic<int> bodies{0};
    std::atomic<bool> mismatch{false};
    std::vector<std::thread> callers;
    for (int i = 0; i < 4; ++i)
      callers.emplace_back([&bodies, &mismatch] {
        for (int k = 0; k < 100; ++k) {
          Rounds r;
          r.rounds = 4;
          r.values.assign(8, -1);
          run_team(2, exchange, &r);
          if (r.mismatch) mismatch = true;
          run_team(2, count_threads, &bodies);
        }
      });
    for (std::thread& t : callers) t.join();
    CHECK(bodies == 800, "%d bodies ran", bodies.load());
    CHECK(!mismatch, "a thread read before its neighbour had written");
  }
}

// A team within a team has one thread: the pool is in use.
TEST(team_inside_a_team_is_serial) {
#ifdef _OPENMP
  const KindGuard guard;
  set_team_kind(TeamKind::kOpenMP);
  std::atomic<int> runs{0};
  run_team(2, [](void* context, int, int) { run_team(2, count_threads, context); }, &runs);
  CHECK(runs == 2, "%d inner bodies ran", runs.load());
  CHECK(team_limit_reason() == nullptr, "%s", team_limit_reason());
#endif
}
