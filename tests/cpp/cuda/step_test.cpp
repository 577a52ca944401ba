// SPDX-License-Identifier: Apache-2.0
// The step path on the emulator, every cell, type, direction and option, against the plain loop.
#include "layer_case.h"

#include "cuda/rows.h"

using namespace rnnfast;
using namespace rnnfast::emulated;

namespace {

template <class S>
void check_drawn(unsigned first, unsigned count) {
  for (unsigned number = first; number < first + count; ++number) {
    const DrawnCase drawn(number, 70, true, true);
    emulator::set_seed(number);
    LayerCase<S>(drawn.problem(), drawn.ask).check(CudaPlan{}, CudaPlan{});
  }
}

}  // namespace

TEST(step_float) { check_drawn<float>(1000, 150); }
TEST(step_double) { check_drawn<double>(2000, 150); }
TEST(step_half) { check_drawn<Half>(3000, 100); }
TEST(step_bfloat16) { check_drawn<BFloat16>(4000, 100); }
