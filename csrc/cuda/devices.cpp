// SPDX-License-Identifier: Apache-2.0
// Devices that the plan knows by name: one card of each architecture.
#include <algorithm>

#include "cuda/plan.h"

namespace rnnfast {
namespace {

constexpr int kKB = 1024;
constexpr int64_t kMB = 1 << 20;

// Multiprocessors, clocks (boost) and memory bandwidth: NVIDIA's data sheets of the card. Shared memory and
// threads: CUDA programming guide, "Technical specifications per compute capability". Multiply-adds a clock: the
// same guide's arithmetic throughput; tensor cores as the architecture's white paper has them, with sums in float,
// which halves them on GeForce cards; sm_90 and sm_100 by what mma.sync reaches of it, about half. L2's bandwidth
// and latency are published by nobody but those who measured them (T4: Jia et al. 2019; A100, H100, 4090: Chips and
// Cheese 2022, 2023), rounded, and guesses for the others; predictions alone use them.
const CudaDevice kDevices[] = {
    {"sm_75", "T4", 75, 40, 64 * kKB, 64 * kKB, 65536, 1024, 4 * kMB, 1.59, 320, 1270, 120, 64, 2, 512},
    {"sm_80", "A100 SXM4 80GB", 80, 108, 163 * kKB, 164 * kKB, 65536, 2048, 40 * kMB, 1.41, 2039, 4500, 160, 64, 32,
     1024},
    {"sm_86", "GeForce RTX 3090", 86, 82, 99 * kKB, 100 * kKB, 65536, 1536, 6 * kMB, 1.695, 936, 2300, 140, 128, 2,
     256},
    {"sm_89", "GeForce RTX 4090", 89, 128, 99 * kKB, 100 * kKB, 65536, 1536, 72 * kMB, 2.52, 1008, 5000, 120, 128,
     2, 256},
    {"sm_90", "H100 SXM5", 90, 132, 227 * kKB, 228 * kKB, 65536, 2048, 50 * kMB, 1.98, 3350, 6000, 160, 128, 64,
     1024},
    {"sm_100", "B200", 100, 148, 227 * kKB, 228 * kKB, 65536, 2048, 126 * kMB, 1.98, 7700, 8000, 180, 128, 64,
     1024},
    {"sm_120", "GeForce RTX 5090", 120, 170, 99 * kKB, 100 * kKB, 65536, 1536, 96 * kMB, 2.41, 1792, 6000, 140, 128,
     2, 256},
};

}  // namespace

const CudaDevice* cuda_device(const std::string& name) {
  // "sm_90a": the architecture with its own instructions; the same device.
  const size_t length = name.size() > 3 && name.back() == 'a' ? name.size() - 1 : name.size();
  for (const CudaDevice& device : kDevices)
    if (name.compare(0, length, device.name) == 0) return &device;
  return nullptr;
}

std::vector<std::string> cuda_device_names() {
  std::vector<std::string> names;
  for (const CudaDevice& device : kDevices) names.emplace_back(device.name);
  return names;
}

CudaDevice cuda_device_like(int architecture, int processors, int shared_block, int shared_processor, int registers,
                            int threads, int64_t l2_bytes) {
  CudaDevice device = kDevices[0];
  for (const CudaDevice& known : kDevices)
    if (known.architecture <= architecture) device = known;
  const double share = double(processors) / device.processors;  // of the known card: bandwidths scale with it
  device.architecture = architecture;
  device.processors = processors;
  device.shared_block = shared_block;
  device.shared_processor = shared_processor;
  device.registers = registers;
  device.threads = threads;
  device.l2_bytes = l2_bytes;
  device.bandwidth_gbs *= share;
  device.l2_gbs *= share;
  return device;
}

}  // namespace rnnfast
