// SPDX-License-Identifier: Apache-2.0
// Runs small kernels on the emulator, and looks at what it says.
#pragma once

#include <string>

#include "check.h"
#include "cuda/primitives/barrier.h"
#include "cuda/primitives/launch.h"
#include "cuda/primitives/mma.h"
#include "cuda/primitives/warp.h"

namespace RNNFAST_NAMESPACE {

template <class P>
Status run(void (*kernel)(P), const P& params, int blocks, int threads, int shared_bytes = 0) {
  Launch launch_shape;
  launch_shape.grid_x = blocks;
  launch_shape.block = launch_shape.max_threads = threads;
  launch_shape.shared_bytes = shared_bytes;
  return launch(kernel, launch_shape, params, Stream{});
}

template <class P>
Status run_cooperative(void (*kernel)(P), const P& params, int blocks, int threads) {
  Launch launch_shape;
  launch_shape.grid_x = blocks;
  launch_shape.block = launch_shape.max_threads = threads;
  launch_shape.cooperative = true;
  return launch(kernel, launch_shape, params, Stream{});
}

inline bool contains(const char* text, const char* words) {
  return text && std::string(text).find(words) != std::string::npos;
}

}  // namespace RNNFAST_NAMESPACE

// With every one of some orders of the threads.
#define FOR_SEEDS for (uint64_t seed = 0; (rnnfast::emulator::set_seed(seed < 10 ? seed : 0), seed < 10); ++seed)

#define CHECK_CLEAN(status)                                                        \
  do {                                                                             \
    const Status s_ = (status);                                                    \
    CHECK(s_, "%s: %s", s_.operation ? s_.operation : "", s_.text ? s_.text : ""); \
  } while (false)

// words: a part of the report.
#define CHECK_REPORT(status, what, words)                                                                      \
  do {                                                                                                         \
    const Status s_ = (status);                                                                                \
    CHECK(!s_ && s_.operation == std::string(what) && contains(s_.text, words), "expected %s: %s; got %s: %s", \
          what, words, s_.operation ? s_.operation : "success", s_.text ? s_.text : "");                       \
  } while (false)
