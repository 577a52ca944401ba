// SPDX-License-Identifier: Apache-2.0
// The vector primitives of every target that runs here.
#include "simd_checks.h"

#include <sys/mman.h>
#include <unistd.h>

#include <string>

#include "check.h"
#include "cpu/kernels.h"

using namespace rnnfast;

namespace {

int (*checks_of(const std::string& target))(void*, void*) {
#if defined(__x86_64__)
#if !defined(RNNFAST_NO_AVX512)
  if (target == "avx512") return simd_checks_avx512;
#endif
#if defined(RNNFAST_WIDE)
  if (target == "wide") return simd_checks_wide;
#endif
  if (target == "avx2") return simd_checks_avx2;
#endif
  return target == "generic" ? simd_checks_generic : nullptr;
}

}  // namespace

TEST(vector_primitives) {
  const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  void* const memory = mmap(nullptr, 3 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  CHECK(memory != MAP_FAILED, "no memory");
  char* const start = static_cast<char*>(memory) + page;
  CHECK(mprotect(start, page, PROT_READ | PROT_WRITE) == 0, "no page");
  for (const Kernels* target : kernels_available()) {
    const auto checks = checks_of(target->name);
    CHECK(checks != nullptr, "no checks of target %s", target->name);
    if (checks != nullptr) CHECK(checks(start, start + page) == 0, "primitives of %s", target->name);
  }
  munmap(memory, 3 * page);
}
