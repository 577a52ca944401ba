// SPDX-License-Identifier: Apache-2.0
// The persistent path: one cooperative launch for all steps of a layer, of one direction or of both.
#pragma once

#include "cuda/params.h"
#include "cuda/plan.h"
#include "cuda/primitives/launch.h"

namespace RNNFAST_NAMESPACE {

// args.direction[0 .. plan.directions): what one launch runs. Sizes and blocking come from the plan
// (units, columns, shared_bytes); counters are zero. An error where the plan does not fit the kernels.
template <class Cell, class S>
Status scan_forward(const ScanForward<S>& args, const CudaPlan& plan, Stream stream);

// Writes delta, grad_h0 and grad_c0, and signals where they are asked for. args.bptt: no limit by norm.
template <class Cell, class S>
Status scan_backward(const ScanBackward<S>& args, const CudaPlan& plan, Stream stream);

}  // namespace RNNFAST_NAMESPACE
