// SPDX-License-Identifier: Apache-2.0
#include <atomic>
#include <mutex>
#include <set>

#include "emulator/state.h"

namespace rnnfast::emulator {

namespace {

std::mutex mutex;
Settings current{{}, 0, true};
Statistics total;
std::string mutation_name;
std::atomic<bool> mutated{false};
std::atomic<uint64_t> hits{0};

}  // namespace

bool set_device(const std::string& name, int processors) {
  const CudaDevice* const device = cuda_device(name);
  if (!device || processors < 0) return false;
  const std::lock_guard<std::mutex> lock(mutex);
  current.device = *device;
  if (processors > 0) current.device.processors = processors;
  return true;
}

CudaDevice device() { return settings().device; }

void set_seed(uint64_t seed) {
  const std::lock_guard<std::mutex> lock(mutex);
  current.seed = seed;
}

void set_race_check(bool check) {
  const std::lock_guard<std::mutex> lock(mutex);
  current.race_check = check;
}

Settings settings() {
  const std::lock_guard<std::mutex> lock(mutex);
  if (current.device.architecture == 0) current.device = *cuda_device("sm_80");
  return current;
}

Statistics statistics() {
  const std::lock_guard<std::mutex> lock(mutex);
  return total;
}

uint64_t next_launch_number() {
  static std::atomic<uint64_t> number{0};
  return ++number;
}

void count_launch(const Statistics& launch) {
  const std::lock_guard<std::mutex> lock(mutex);
  total.launches += launch.launches;
  total.fibers += launch.fibers;
  total.switches += launch.switches;
  total.accesses += launch.accesses;
}

const char* keep_text(const std::string& text) {
  static std::set<std::string>* const texts = new std::set<std::string>;
  const std::lock_guard<std::mutex> lock(mutex);
  return texts->insert(text).first->c_str();
}

void set_mutation(const std::string& name) {
  const std::lock_guard<std::mutex> lock(mutex);
  mutation_name = name;
  hits = 0;
  mutated = !name.empty();
}

uint64_t mutation_hits() { return hits; }

// Set between launches only, so that the name may be read without a lock.
bool mutation(const char* name) {
  if (!mutated.load(std::memory_order_relaxed) || mutation_name != name) return false;
  hits.fetch_add(1, std::memory_order_relaxed);
  return true;
}

}  // namespace rnnfast::emulator
