// SPDX-License-Identifier: Apache-2.0
// What this machine can do at most, measured now: the limits that a benchmark holds its times against.
#pragma once

#include <cstdint>

namespace rnnfast {

// GF/s of independent fp32 FMAs on `threads` threads of the instruction set in use, for about 20 ms.
double fma_peak(int threads);

// GB/s of `threads` threads that each read `bytes_per_thread` of their own over and over, for about 20 ms: from the
// cache that holds so much, or from memory.
double read_bandwidth(int64_t bytes_per_thread, int threads);

}  // namespace rnnfast
