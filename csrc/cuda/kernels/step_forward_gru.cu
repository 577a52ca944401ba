// SPDX-License-Identifier: Apache-2.0
#include "cuda/step_forward.h"

namespace RNNFAST_NAMESPACE {

RNNFAST_STEP_FORWARD(GruCell)

}  // namespace RNNFAST_NAMESPACE
