// SPDX-License-Identifier: Apache-2.0
// The thread team: one parallel region a call, and a barrier. Three bodies: OpenMP (the product), std::thread
// (which ThreadSanitizer understands) and serial.
#pragma once

#include <atomic>
#include <cstdint>

namespace rnnfast {

// Spins briefly, then sleeps until woken: right also where other processes use the cores, since a fair scheduler
// gives back to a sleeper what it has left to others, while one that spins or yields loses its turn. Safe to reuse
// at once; it must live until every thread has left wait().
class Barrier {
 public:
  // Returns when `count` threads have called it.
  void wait(int count);

 private:
  static constexpr uint32_t kSleeping = 1, kPhase = 2;

  alignas(64) std::atomic<int> arrived_{0};
  alignas(64) std::atomic<uint32_t> phase_{0};  // counts by kPhase; kSleeping: someone sleeps until it changes
};

enum class TeamKind { kOpenMP, kStdThread, kSerial };

// What a team runs: body(context, index, count), count being the threads that the runtime really gave.
using TeamBody = void (*)(void* context, int index, int count);

// The kind used by run_team below. The product keeps OpenMP; tests choose.
void set_team_kind(TeamKind kind);
TeamKind team_kind();

// Runs the body on up to `threads` threads, the caller's included, and returns when all are done. Inside a parallel
// region, and in a child of fork() (whose OpenMP pool did not survive), it runs on the caller alone.
void run_team(int threads, TeamBody body, void* context);

// Why run_team would use one thread only, or null.
const char* team_limit_reason();

}  // namespace rnnfast
