// SPDX-License-Identifier: Apache-2.0
#include "bindings/machine.h"

#include <ATen/Parallel.h>
#include <unistd.h>

#include "cpu/kernels.h"
#include "cpu/team.h"

namespace rnnfast {
namespace {

int64_t cache_bytes(int name, int64_t otherwise) {
  const long bytes = sysconf(name);
  return bytes > 0 ? bytes : otherwise;
}

}  // namespace

Machine this_machine() {
#ifdef _SC_LEVEL2_CACHE_SIZE
  static const int64_t l2 = cache_bytes(_SC_LEVEL2_CACHE_SIZE, 512 << 10);
#else
  static const int64_t l2 = 512 << 10;
#endif
  Machine machine;
  machine.threads = team_limit_reason() ? 1 : at::get_num_threads();
  machine.l2_bytes = l2;
  machine.vector_bytes = kernels().vector_bytes;
  return machine;
}

}  // namespace rnnfast
