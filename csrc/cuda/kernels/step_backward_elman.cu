// SPDX-License-Identifier: Apache-2.0
#include "cuda/step_backward.h"

namespace RNNFAST_NAMESPACE {

RNNFAST_STEP_BACKWARD(ElmanCell)

}  // namespace RNNFAST_NAMESPACE
