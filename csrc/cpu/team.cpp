// SPDX-License-Identifier: Apache-2.0
#include "cpu/team.h"

#include <pthread.h>
#include <sched.h>

#include <thread>
#include <vector>

#ifdef _OPENMP
#include <omp.h>
#endif

namespace rnnfast {
namespace {

// About 20 us of spinning: longer than any healthy step's imbalance, far shorter than a scheduler's time slice.
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

void run_std_threads(int threads, TeamBody body, void* context) {
  std::vector<std::thread> others;
  others.reserve(static_cast<size_t>(threads - 1));
  for (int i = 1; i < threads; ++i) others.emplace_back(body, context, i, threads);
  body(context, 0, threads);
  for (std::thread& t : others) t.join();
}

#ifdef _OPENMP
void run_openmp(int threads, TeamBody body, void* context) {
#pragma omp parallel num_threads(threads)
  body(context, omp_get_thread_num(), omp_get_num_threads());
}
#endif

}  // namespace

void Barrier::wait(int count) {
  if (count == 1) return;
  const uint32_t phase = phase_.load(std::memory_order_acquire);
  if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == count) {
    arrived_.store(0, std::memory_order_relaxed);
    phase_.store(phase + 1, std::memory_order_release);
    return;
  }
  for (int spins = 0; phase_.load(std::memory_order_acquire) == phase; ++spins) {
    if (spins < kSpins) {
      relax();
    } else {
      sched_yield();
    }
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
