// SPDX-License-Identifier: Apache-2.0
#include "cpu/team.h"

#include <pthread.h>
#include <sched.h>

#include <climits>
#include <thread>
#include <vector>

#ifdef __linux__
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif
#ifdef _OPENMP
#include <omp.h>
#endif

namespace rnnfast {
namespace {

// About 100 us of spinning on Zen 3 (a pause takes 25 ns there): longer than any healthy step's imbalance, far
// shorter than a scheduler's time slice. A fifth or a twentieth of it put threads to sleep that were about to meet,
// and cost 10 to 100% beside other processes.
constexpr int kSpins = 4000;

std::atomic<TeamKind> g_kind{
#ifdef _OPENMP
    TeamKind::kOpenMP
#else
    TeamKind::kStdThread
#endif
};

// Set in the child of a fork. The OpenMP pool is shared with torch, so even a process in which we had run nothing
// may have lost it.
std::atomic<bool> g_pool_lost{false};

void after_fork_in_child() { g_pool_lost.store(true, std::memory_order_relaxed); }

// dlopen of this library is the earliest moment at which there is something to lose.
const int g_atfork_registered = pthread_atfork(nullptr, nullptr, after_fork_in_child);

inline void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Sleeps while the word holds this value, or less long; wakes all who sleep on it. Without futexes: yields.
#ifdef __linux__
void sleep_while(std::atomic<uint32_t>& word, uint32_t value) {
  syscall(SYS_futex, reinterpret_cast<uint32_t*>(&word), FUTEX_WAIT_PRIVATE, value, nullptr, nullptr, 0);
}
void wake_all(std::atomic<uint32_t>& word) {
  syscall(SYS_futex, reinterpret_cast<uint32_t*>(&word), FUTEX_WAKE_PRIVATE, INT_MAX, nullptr, nullptr, 0);
}
#else
void sleep_while(std::atomic<uint32_t>&, uint32_t) { sched_yield(); }
void wake_all(std::atomic<uint32_t>&) {}
#endif

void run_std_threads(int threads, TeamBody body, void* context) {
  std::vector<std::thread> others;
  others.reserve(static_cast<size_t>(threads - 1));
  for (int i = 1; i < threads; ++i) others.emplace_back(body, context, i, threads);
  body(context, 0, threads);
  for (std::thread& t : others) t.join();
}

#ifdef _OPENMP
void run_openmp(int threads, TeamBody body, void* context) {
  // libgomp's own barrier at the end of a region spins for some 8 ms before it sleeps, at the cost of the share of
  // the core that the next call will need: meet here first.
  Barrier end;
#pragma omp parallel num_threads(threads)
  {
    const int count = omp_get_num_threads();
    body(context, omp_get_thread_num(), count);
    end.wait(count);
  }
}
#endif

}  // namespace

void Barrier::wait(int count) {
  if (count == 1) return;
  const uint32_t phase = phase_.load(std::memory_order_acquire) & ~kSleeping;
  if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == count) {
    arrived_.store(0, std::memory_order_relaxed);
    if (phase_.exchange(phase + kPhase, std::memory_order_acq_rel) & kSleeping) wake_all(phase_);
    return;
  }
  const auto over = [&] { return (phase_.load(std::memory_order_acquire) & ~kSleeping) != phase; };
  for (int spins = 0; spins < kSpins; ++spins) {
    if (over()) return;
    relax();
  }
  while (!over()) {
    // The last to arrive wakes others only where this mark stands; it is never set in a phase that has begun since.
    uint32_t now = phase;
    if (phase_.compare_exchange_strong(now, phase | kSleeping, std::memory_order_acq_rel) ||
        now == (phase | kSleeping))
      sleep_while(phase_, phase | kSleeping);
  }
}

void set_team_kind(TeamKind kind) { g_kind.store(kind); }
TeamKind team_kind() { return g_kind.load(); }

const char* team_limit_reason() {
  if (team_kind() == TeamKind::kSerial) return "the serial team was chosen";
  if (g_pool_lost.load(std::memory_order_relaxed)) {
    return "this process is the child of a fork, and an OpenMP pool does not survive a fork";
  }
#ifdef _OPENMP
  if (team_kind() == TeamKind::kOpenMP && omp_in_parallel()) return "called inside another parallel region";
#endif
  (void)g_atfork_registered;
  return nullptr;
}

void run_team(int threads, TeamBody body, void* context) {
  if (threads <= 1 || team_limit_reason() != nullptr) {
    body(context, 0, 1);
    return;
  }
#ifdef _OPENMP
  if (team_kind() == TeamKind::kOpenMP) {
    run_openmp(threads, body, context);
    return;
  }
#endif
  run_std_threads(threads, body, context);
}

}  // namespace rnnfast
