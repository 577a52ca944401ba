// SPDX-License-Identifier: Apache-2.0
// One layer with all its directions on a device: projection of the input, initial states, the path that the plan
// chose, and backward the gradients over all rows. Pointers, sizes and a stream; no torch, no allocation, no
// synchronisation, nothing that a CUDA graph could not capture.
#pragma once

#include "cuda/gemm.h"
#include "cuda/params.h"
#include "cuda/plan.h"

namespace RNNFAST_NAMESPACE {

// Bytes of device memory that a call needs besides its arguments; of the arguments only sizes, and which pointers
// are null, are looked at. The plan must be the call's.
template <class S>
size_t forward_workspace_bytes(CellKind cell, const CudaForward<S>& args, const CudaPlan& plan);
template <class S>
size_t backward_workspace_bytes(CellKind cell, const CudaBackward<S>& args, const CudaPlan& plan);

// workspace: aligned to 256 bytes; free again when the stream has passed the call. gemm: sums products of S in
// Compute<S>. An error names what was wrong; after one, nothing more has been queued.
template <class S>
Status layer_forward(CellKind cell, const CudaForward<S>& args, const CudaPlan& plan, void* workspace,
                     const Gemm& gemm, Stream stream);
template <class S>
Status layer_backward(CellKind cell, const CudaBackward<S>& args, const CudaPlan& plan, void* workspace,
                      const Gemm& gemm, Stream stream);

}  // namespace RNNFAST_NAMESPACE
