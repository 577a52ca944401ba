// SPDX-License-Identifier: Apache-2.0
// The pretended device, its settings, and the launch of kernels on it.
#pragma once

#include <cstdint>
#include <string>

#include "cuda/plan.h"

namespace rnnfast::emulator {

struct Stream {};  // every launch is over when it returns

struct Shape {
  int grid_x = 1, grid_y = 1, block = 32;
  int max_threads = 32;  // launch bounds
  int shared_bytes = 0;  // dynamic
  bool cooperative = false;
};

// Success: text is null. Strings live as long as the process.
struct Outcome {
  const char* operation = nullptr;
  const char* text = nullptr;
};

// Runs body in every thread of the grid, on the calling OS thread. what: __PRETTY_FUNCTION__ of a template whose
// parameter P, the type of the kernel's arguments, names the kernel in reports.
Outcome run_launch(const Shape& shape, void (*body)(const void*), const void* argument, const char* what);

template <class Body>
Outcome launch(const Shape& shape, const Body& body, Stream, const char* what) {
  return run_launch(shape, [](const void* p) { (*static_cast<const Body*>(p))(); }, &body, what);
}

// Settings of the process; a launch takes them as they are when it begins.
// The device that launches see: one of cuda/plan.h's by name; processors: how many multiprocessors, if not its own
// (fewer blocks at once: cheaper, and shapes as they would be of a larger layer). False: unknown. Default: sm_80.
bool set_device(const std::string& name, int processors = 0);
CudaDevice device();
void set_seed(uint64_t seed);     // of the order in which threads run. Default: 0
void set_race_check(bool check);  // default: on

struct Statistics {
  uint64_t launches = 0, fibers = 0, switches = 0, accesses = 0;  // since the process began
};
Statistics statistics();

// Mutations: kernels mark a place at which a test may break them, if (RNNFAST_MUTATION("name")) ...; at most one is
// on at a time. Empty: none.
void set_mutation(const std::string& name);
uint64_t mutation_hits();  // how often the one that is on was met
bool mutation(const char* name);

}  // namespace rnnfast::emulator
