// SPDX-License-Identifier: Apache-2.0
// The matrix products of the CUDA layers, by cuBLAS through torch's own handle and workspace.
#pragma once

#include "cuda/gemm.h"

namespace rnnfast {

// tf32: products of floats may be rounded to tf32 (torch.backends.cudnn.rnn.fp32_precision). The handle is the
// calling thread's, for torch's current stream, and must not outlive the call.
class TorchGemm {
 public:
  explicit TorchGemm(bool tf32) : tf32_(tf32) {}
  cuda::Gemm gemm() { return {this, run}; }

 private:
  static cuda::Status run(void* self, const cuda::GemmCall& call, cuda::Stream stream);

  bool tf32_;
};

}  // namespace rnnfast
