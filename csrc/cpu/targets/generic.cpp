// SPDX-License-Identifier: Apache-2.0
// Vectors of 16 bytes in the baseline of the architecture: SSE2, NEON, or plain scalar code.
#include "cpu/targets/common.h"

#define RNNFAST_NAMESPACE rnnfast_generic
#define RNNFAST_VECTOR_BYTES 16
#include "cpu/target.h"

namespace rnnfast {
extern const Kernels k_generic;
constexpr Kernels k_generic = rnnfast_generic::make_kernels("generic");
}  // namespace rnnfast
