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
enum class CudaProduct { kFma, kMma };  // plain multiply-adds, or tensor cores

struct CudaDevice {
  const char* name = "";  // "sm_90"
  int architecture = 0;   // 90
  int processors = 0;     // multiprocessors
  int shared_block = 0;   // bytes of shared memory a block may ask for
  int shared_processor = 0;
  int registers = 65536;  // of a multiprocessor
  int threads = 0;        // resident on a multiprocessor
  double clock_ghz = 0, bandwidth_gbs = 0, l2_gbs = 0;
};

struct CudaShape {
  CellKind cell = CellKind::lstm;
  int64_t T = 0, B = 0, I = 0, H = 0, P = 0;
  int directions = 1;
  CudaDtype dtype = CudaDtype::kFloat;
  bool projection = false, packed = false, backward = false, training = false;
  bool tf32 = false;       // float products may be rounded to tf32
  bool clip_norm = false;  // BPTT's limit on the norm: step path only
};

// Threads of a persistent block. One block a multiprocessor, so each thread has up to 255 registers.
constexpr int kScanThreads = 256;

struct CudaPlan {
  CudaPath path = CudaPath::kStep;
  CudaProduct product = CudaProduct::kFma;
  int units = 0;                     // hidden units a block owns, with all their gates
  int blocks = 0;                    // of a direction: ceil(H / units)
  int directions = 1;                // in one launch
  int threads = 0;                   // of a block
  int columns = 0;                   // rows of the batch that one pass of the product takes
  int shared_bytes = 0;              // dynamic, of a block
  double microseconds = 0;           // of a step; a prediction
  std::vector<std::string> reasons;  // why no faster path
};

CudaPlan plan_cuda(const CudaShape& shape, const CudaDevice& device);

// Known devices by name ("sm_90"): for questions without a GPU, and for tests. Null: unknown.
const CudaDevice* cuda_device(const std::string& name);
std::vector<std::string> cuda_device_names();

}  // namespace rnnfast
