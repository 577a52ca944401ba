// SPDX-License-Identifier: Apache-2.0
// How a layer runs on a GPU: a pure function of shape, dtype and the device's properties; no CUDA in it, so that it
// is tested, and can be asked, without a GPU.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "cells/list.h"

namespace rnnfast {

enum class CudaDtype { kFloat, kDouble, kHalf, kBFloat16 };
enum class CudaPath { kStep, kPersistent };
enum class CudaProduct { kFma, kMma };                // plain multiply-adds, or tensor cores
enum class CudaChoice { kBest, kStep, kPersistent };  // the plan's, or asked for (where it can run)

struct CudaDevice {
  const char* name = "";  // "sm_90"
  const char* card = "";  // whose figures these are
  int architecture = 0;   // 90
  int processors = 0;     // multiprocessors
  int shared_block = 0;   // bytes of shared memory a block may ask for
  int shared_processor = 0;
  int registers = 65536;  // of a multiprocessor
  int threads = 0;        // resident on a multiprocessor
  int64_t l2_bytes = 0;
  // The rest serves predictions only.
  double clock_ghz = 0, bandwidth_gbs = 0, l2_gbs = 0, l2_latency_ns = 0;
  int float_fma = 0, double_fma = 0;  // multiply-adds of a multiprocessor a clock
  int tensor_fma = 0;                 // ... of 16-bit values by mma.sync, summed in float; tf32: half as many
  bool cooperative = true;            // whether it has launches whose blocks are all resident at once
};

struct CudaShape {
  CellKind cell = CellKind::lstm;
  int64_t T = 0, B = 0, I = 0, H = 0, P = 0;
  int directions = 1;
  CudaDtype dtype = CudaDtype::kFloat;
  bool projection = false, packed = false, backward = false, training = false;
  bool tf32 = false;       // float products may be rounded to tf32
  bool clip_norm = false;  // BPTT's limit on the norm: step path only
  CudaChoice choice = CudaChoice::kBest;
};

// Threads of a persistent block. One block a multiprocessor, so each thread has up to 255 registers.
constexpr int kScanThreads = 256;
// ... of a block of the step path's pointwise kernels.
constexpr int kStepThreads = 128;

// Predicted microseconds of one time step of one launch, by what takes them.
struct CudaCost {
  double barrier = 0, exchange = 0, product = 0, pointwise = 0, launch = 0;
  double total() const { return barrier + exchange + product + pointwise + launch; }
};

struct CudaPlan {
  CudaPath path = CudaPath::kStep;
  CudaProduct product = CudaProduct::kFma;
  int units = 0;                  // hidden units a block owns, with all their gates
  int blocks = 0;                 // of a direction: ceil(H / units)
  int directions = 1;             // in one launch
  int threads = 0;                // of a block
  int columns = 0;                // rows of the batch that one pass of the product takes
  int shared_bytes = 0;           // dynamic, of a block
  int weight_registers = 0;       // of a thread's 255: those that hold weights over the whole sequence
  double microseconds = 0;        // of a time step of all directions; a prediction
  double fixed_microseconds = 0;  // of a call, besides its steps: launches, loading the weights; a prediction
  double other_microseconds = 0;  // of a step on the other path; 0 where that cannot run
  CudaCost cost;                  // of a step of one launch, the prediction's parts
  double flops = 0, bytes = 0;    // of a step of one launch: multiply-adds twice; moved between kernel and memory
  std::vector<std::string> reasons;  // why no faster path
};

// explain: fill in the reasons (the choice does not depend on it).
CudaPlan plan_cuda(const CudaShape& shape, const CudaDevice& device, bool explain = true);

// Known devices by name ("sm_90", "sm_90a"): for questions without a GPU, and for tests. Null: unknown.
const CudaDevice* cuda_device(const std::string& name);
std::vector<std::string> cuda_device_names();

// A device as the driver describes it; rates of a multiprocessor are those of the nearest known architecture that
// is not newer. Of an architecture older than all known ones: the oldest's.
CudaDevice cuda_device_like(int architecture, int processors, int shared_block, int shared_processor, int registers,
                            int threads, int64_t l2_bytes);

const char* to_string(CudaDtype dtype);
const char* to_string(CudaPath path);
const char* to_string(CudaProduct product);

}  // namespace rnnfast
