// SPDX-License-Identifier: Apache-2.0
#include <atomic>
#include <mutex>
#include <set>

#include "emulator/state.h"

namespace rnnfast::emulator {

namespace {

// Multiprocessors of a common card of each; shared memory as CUDA's table of compute capabilities has it.
constexpr Device kDevices[] = {
    {"sm_75", 75, 40, 64 * 1024},    // T4
    {"sm_80", 80, 108, 163 * 1024},  // A100
    {"sm_86", 86, 84, 99 * 1024},    // A40
    {"sm_89", 89, 128, 99 * 1024},   // RTX 4090
    {"sm_90", 90, 132, 227 * 1024},  // H100
    {"sm_100", 100, 148, 227 * 1024}, {"sm_120", 120, 170, 99 * 1024},
};

std::mutex mutex;
Settings current{&kDevices[1], 0, true};
Statistics total;
std::string mutation_name;
std::atomic<bool> mutated{false};
std::atomic<uint64_t> hits{0};

}  // namespace

std::vector<std::string> devices() {
  std::vector<std::string> names;
  for (const Device& device : kDevices) names.push_back(device.name);
  return names;
}

bool set_device(const std::string& name) {
  for (const Device& device : kDevices)
    if (name == device.name) {
      const std::lock_guard<std::mutex> lock(mutex);
      current.device = &device;
      return true;
    }
  return false;
}

std::string device() { return settings().device->name; }

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
