// SPDX-License-Identifier: Apache-2.0
#include "bindings/cuda/gemm.h"

#include <ATen/cuda/CUDAContext.h>
#include <c10/util/Exception.h>
#include <cublas_v2.h>

#include <limits>

namespace rnnfast {
namespace {

cudaDataType_t data_type(cuda::Dtype dtype) {
  switch (dtype) {
    case cuda::Dtype::kDouble:
      return CUDA_R_64F;
    case cuda::Dtype::kHalf:
      return CUDA_R_16F;
    case cuda::Dtype::kBFloat16:
      return CUDA_R_16BF;
    default:
      return CUDA_R_32F;
  }
}

// torch's handle, rounding to tf32 as the layer is told and not as torch.backends.cuda.matmul is; as it was
// afterwards.
class MathMode {
 public:
  MathMode(cublasHandle_t handle, bool tf32) : handle_(handle), status_(cublasGetMathMode(handle, &before_)) {
    if (status_ != CUBLAS_STATUS_SUCCESS) return;
    // Sums of 16-bit products stay in float, whatever torch.backends.cuda.matmul allows.
    const int mode = (tf32 ? CUBLAS_TF32_TENSOR_OP_MATH : CUBLAS_DEFAULT_MATH) |
                     CUBLAS_MATH_DISALLOW_REDUCED_PRECISION_REDUCTION;
    status_ = cublasSetMathMode(handle_, static_cast<cublasMath_t>(mode));
    changed_ = status_ == CUBLAS_STATUS_SUCCESS;
  }
  ~MathMode() {
    if (changed_ && cublasSetMathMode(handle_, before_) != CUBLAS_STATUS_SUCCESS)
      TORCH_WARN("rnnfast: cublasSetMathMode: torch's own mode could not be set again");
  }

  cublasStatus_t status() const { return status_; }

 private:
  cublasHandle_t handle_;
  cublasMath_t before_ = CUBLAS_DEFAULT_MATH;
  cublasStatus_t status_;
  bool changed_ = false;
};

}  // namespace

cuda::Status TorchGemm::run(void* self, const cuda::GemmCall& call, cuda::Stream) {
  const bool tf32 = static_cast<TorchGemm*>(self)->tf32_;
  constexpr int64_t kMost = std::numeric_limits<int>::max();
  for (const int64_t size : {call.M, call.N, call.K, call.lda, call.ldb, call.ldc})
    if (size > kMost) return {"cublasGemmEx", "a size of more than 2^31 - 1"};
  const cublasHandle_t handle = at::cuda::getCurrentCUDABlasHandle();
  const MathMode mode(handle, tf32);
  if (mode.status() != CUBLAS_STATUS_SUCCESS)
    return {"cublasGetMathMode or cublasSetMathMode", cublasGetStatusString(mode.status())};
  const bool wide = call.in == cuda::Dtype::kDouble;
  const float one = 1, beta = call.accumulate ? 1 : 0;
  const double wide_one = 1, wide_beta = beta;
  // Column-major, a row-major matrix is its own transpose: C^T [N, M] = op(B)^T op(A)^T.
  const cublasStatus_t status = cublasGemmEx(
      handle, call.transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N, call.transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N,
      static_cast<int>(call.N), static_cast<int>(call.M), static_cast<int>(call.K),
      wide ? static_cast<const void*>(&wide_one) : &one, call.b, data_type(call.in), static_cast<int>(call.ldb),
      call.a, data_type(call.in), static_cast<int>(call.lda), wide ? static_cast<const void*>(&wide_beta) : &beta,
      call.c, data_type(call.out), static_cast<int>(call.ldc), wide ? CUBLAS_COMPUTE_64F : CUBLAS_COMPUTE_32F,
      CUBLAS_GEMM_DEFAULT);
  if (status != CUBLAS_STATUS_SUCCESS) return {"cublasGemmEx", cublasGetStatusString(status)};
  return {};
}

}  // namespace rnnfast
