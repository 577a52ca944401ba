// SPDX-License-Identifier: Apache-2.0
// Predicted times, from bytes, multiply-adds, latencies and a few rates. No measurement stands behind them: they
// rank blockings and give an order of magnitude.
#pragma once

#include "cuda/plan.h"

namespace rnnfast {

// What one launch of a persistent scan does in a step.
struct ScanWork {
  CudaProduct product = CudaProduct::kFma;
  int64_t rows = 0, depth = 0;  // of a block's slice, rows padded as the kernel pads them
  int columns = 0, units = 0, blocks = 0, directions = 1;
  int tile = 1;                     // samples that one reading of the weights serves
  int64_t shared_weight_bytes = 0;  // of the slice: what is read from shared memory for every tile
};

CudaCost scan_cost(const CudaShape& shape, const CudaDevice& device, const ScanWork& work);
// Of a launch: itself, and loading the slices.
double scan_fixed_cost(const CudaShape& shape, const CudaDevice& device, const ScanWork& work);
// Floating-point operations (a multiply-add counts twice) and bytes from and to memory or L2, of a step.
void scan_traffic(const CudaShape& shape, const ScanWork& work, double& flops, double& bytes);

// One direction's step on the step path: its GEMM and its pointwise kernel, replayed from a CUDA graph.
CudaCost step_cost(const CudaShape& shape, const CudaDevice& device);
double step_fixed_cost(const CudaShape& shape, const CudaDevice& device);
void step_traffic(const CudaShape& shape, double& flops, double& bytes);

}  // namespace rnnfast
