// SPDX-License-Identifier: Apache-2.0
// What the plan may know of this process and machine.
#pragma once

#include "cpu/plan.h"

namespace rnnfast {

// Threads as torch.get_num_threads() says; the size of a private cache, read once.
Machine this_machine();

}  // namespace rnnfast
