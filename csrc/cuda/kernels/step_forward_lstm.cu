// SPDX-License-Identifier: Apache-2.0
#include "cuda/step_forward.h"

namespace RNNFAST_NAMESPACE {

RNNFAST_STEP_FORWARD(LstmCell)

}  // namespace RNNFAST_NAMESPACE
