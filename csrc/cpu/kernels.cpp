// SPDX-License-Identifier: Apache-2.0
#include "cpu/kernels.h"

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <stdexcept>

namespace rnnfast {

extern const Kernels k_generic;
#if defined(__x86_64__)
extern const Kernels k_avx2;
#if !defined(RNNFAST_NO_AVX512)
extern const Kernels k_avx512;
#endif
#if defined(RNNFAST_WIDE)
extern const Kernels k_wide;  // tests/cpp/targets/wide.cpp
#endif
#endif

namespace {

bool runs_here(const Kernels* k) {
#if defined(__x86_64__)
  // The compiler's run-time library checks CPUID and that the operating system saves the registers (XCR0).
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                    __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2");
#if !defined(RNNFAST_NO_AVX512)
  if (k == &k_avx512) {
    return avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
  }
#endif
#if defined(RNNFAST_WIDE)
  if (k == &k_wide) return avx2;
#endif
  if (k == &k_avx2) return avx2;
#endif
  return k == &k_generic;
}

const Kernels* find(const std::string& name) {
  if (name.empty()) return kernels_available().front();
  std::string names;
  for (const Kernels* k : kernels_available()) {
    if (name == k->name) return k;
    names += names.empty() ? k->name : std::string(", ") + k->name;
  }
  throw std::invalid_argument("rnnfast: instruction set (RNNFAST_ISA): expected one of " + names +
                              " on this machine, got '" + name + "'");
}

std::atomic<const Kernels*> g_in_use{nullptr};

}  // namespace

const std::vector<const Kernels*>& kernels_built() {
  static const std::vector<const Kernels*> all = {
#if defined(__x86_64__)
#if !defined(RNNFAST_NO_AVX512)
      &k_avx512,
#endif
      &k_avx2,
#if defined(RNNFAST_WIDE)
      &k_wide,
#endif
      &k_generic,
#else
      &k_generic,
#endif
  };
  return all;
}

const std::vector<const Kernels*>& kernels_available() {
  static const std::vector<const Kernels*> available = [] {
    std::vector<const Kernels*> found;
    for (const Kernels* k : kernels_built())
      if (runs_here(k)) found.push_back(k);
    return found;
  }();
  return available;
}

const Kernels& kernels() {
  const Kernels* k = g_in_use.load(std::memory_order_acquire);
  if (k == nullptr) {
    const char* forced = std::getenv("RNNFAST_ISA");
    k = find(forced ? forced : "");
    g_in_use.store(k, std::memory_order_release);
  }
  return *k;
}

void use_isa(const std::string& name) { g_in_use.store(find(name), std::memory_order_release); }

}  // namespace rnnfast
