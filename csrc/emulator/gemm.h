// SPDX-License-Identifier: Apache-2.0
// The matrix products that a library makes on a device.
#pragma once

#include "cuda/gemm.h"

namespace RNNFAST_NAMESPACE {

// Plain loops; sums in float, for double in double, from k = 0 on.
Gemm host_gemm();

}  // namespace RNNFAST_NAMESPACE
