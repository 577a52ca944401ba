// SPDX-License-Identifier: Apache-2.0
#include "bindings/limits.h"

#include <c10/util/Exception.h>

#include <algorithm>
#include <chrono>

#include "bindings/workspace.h"
#include "cpu/kernels.h"

namespace rnnfast {
namespace {

// Seconds that the team takes for `body`, after one run to warm up; `threads`: those that the runtime gave.
template <class Body>
double timed(int& threads, Body body) {
  struct Call {
    Body& body;
    int given;
  } call{body, 1};
  const auto run = [](void* c, int index, int count) {
    Call* call = static_cast<Call*>(c);
    if (index == 0) call->given = count;
    call->body(index);
  };
  run_team(threads, run, &call);
  const auto start = std::chrono::steady_clock::now();
  run_team(threads, run, &call);
  const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
  threads = call.given;
  return elapsed.count();
}

}  // namespace

double fma_peak(int threads) {
  TORCH_CHECK(threads >= 1, "rnnfast: fma_peak: threads: expected at least 1, got ", threads);
  constexpr int64_t kRounds = 1'000'000;
  const Kernels& target = kernels();
  const double seconds = timed(threads, [&](int) { target.fma_flops(kRounds); });
  return target.fma_flops(1) * double(kRounds) * threads / seconds * 1e-9;
}

double read_bandwidth(int64_t bytes_per_thread, int threads) {
  constexpr int64_t kLeast = 4096, kMost = int64_t(1) << 30, kTotal = int64_t(1) << 30;
  TORCH_CHECK(threads >= 1, "rnnfast: read_bandwidth: threads: expected at least 1, got ", threads);
  TORCH_CHECK(bytes_per_thread >= kLeast && bytes_per_thread <= kMost,
              "rnnfast: read_bandwidth: bytes_per_thread: expected ", kLeast, " to ", kMost, ", got ",
              bytes_per_thread);
  const int64_t floats = bytes_per_thread / 4096 * 1024;
  const Workspace workspace(threads * floats * int64_t(sizeof(float)));
  float* const memory = workspace.as<float>();
  std::fill_n(memory, threads * floats, 1.0f);  // a page that was never written may be one page of zeros for all
  const Kernels& target = kernels();
  const int64_t rounds = std::max<int64_t>(1, kTotal / (floats * int64_t(sizeof(float))));
  const double seconds = timed(threads, [&](int index) {
    volatile float sink = 0;
    for (int64_t r = 0; r < rounds; ++r) sink = target.read_memory(memory + index * floats, floats);
    (void)sink;
  });
  return double(floats) * sizeof(float) * double(rounds) * threads / seconds * 1e-9;
}

}  // namespace rnnfast
