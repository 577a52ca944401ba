// SPDX-License-Identifier: Apache-2.0
// Devices that the plan knows by name: one card of each architecture.
#include <algorithm>

#include "cuda/plan.h"

namespace rnnfast {
namespace {

constexpr int kKB = 1024;
constexpr int64_t kMB = 1 << 20;

// Where the figures come from, checked in November 2026.
//
// Shared memory of a block (opt-in) and of a multiprocessor, registers, threads: CUDA programming guide, "Technical
// specifications per compute capability", as NVIDIA's libcu++ repeats them (cuda/__device/arch_traits.h).
// Multiprocessors, L2, clock (boost), memory bandwidth: of the product that the row names, NVIDIA's figures as
// deviceQuery prints them (T4; A100) or as data sheets have it (H100 SXM5: 132, 50 MB, 3350 GB/s; its 67 TFLOPS of
// float are 1.98 GHz) and reviews repeat them (GeForce RTX 3090, 4090, 5090). B200: as its driver reports
// (pytorch/ao pull request 4002: 148, 126.5 MB, 7680 bits at 3996 MHz; the data sheet: "up to 8 TB/s"), 75 TFLOPS
// of float. Multiply-adds a clock, of float, double and tensor cores (16-bit values, sums in float: half the rate
// on GeForce): TFLOPS of the product by multiprocessors, clock and two. sm_90's and sm_100's tensor cores: half and
// a quarter of that, about what mma.sync reaches; the whole belongs to instructions that the kernels do not use.
// L2's bandwidth and latency are published by nobody but those who measured them (T4: Jia et al. 2019; A100, H100,
// 4090, B200: Chips and Cheese 2022, 2023, 2025, the last 150 ns in the near half of L2, and a barrier waits for
// the far one), rounded; guesses for 3090 and 5090, and the bandwidth of B200's. Predictions alone use them.
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
    {"sm_100", "B200", 100, 148, 227 * kKB, 228 * kKB, 65536, 2048, 126 * kMB, 1.98, 7672, 8000, 180, 128, 64,
     1024},
    {"sm_120", "GeForce RTX 5090", 120, 170, 99 * kKB, 100 * kKB, 65536, 1536, 96 * kMB, 2.407, 1792, 6000, 140,
     128, 2, 256},
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
