// SPDX-License-Identifier: Apache-2.0
// The pointwise part of a forward step: a thread takes one unit, with all its gates, of one sample or of several.
// Bytes and flops of a unit: unit.h. Threads of a warp take neighbouring units, so every access is coalesced.
#pragma once

#include "cuda/step.h"
#include "cuda/unit.h"

namespace RNNFAST_NAMESPACE {

template <class S>
struct StepForwardLaunch {
  StepForward<S> step;
  int unit_bits;
};

template <class Cell, class S>
RNNFAST_KERNEL(kStepThreads, 4)
step_forward_kernel(StepForwardLaunch<S> launched) {
  using Unit = UnitForward<Cell, S>;
  using V = Compute<S>;
  const StepForward<S>& p = launched.step;
  const StepPairs pairs(launched.unit_bits);
  const int unit = pairs.unit, H = p.H;
  if (unit >= (RNNFAST_MUTATION("step forward: tail mask") ? H - 1 : H)) return;
  const Cell cell(p.variant);
  const typename Unit::Biases biases = Unit::load_biases(p.direction, H, unit);
  for (int b = pairs.sample; b < p.rows.active; b += pairs.stride) {
    const int64_t state = static_cast<int64_t>(b) * H + unit, row = p.rows.row + b;
    V recurrent[Cell::kGates], carried = 0;
#pragma unroll
    for (int g = 0; g < Cell::kGates; ++g)
      recurrent[g] =
          b < p.recurrent_rows ? p.recurrent[(static_cast<int64_t>(b) * Cell::kGates + g) * H + unit] : V(0);
    if constexpr (kCarriesForward<Cell>)
      carried = b < p.rows.had_step ? p.direction.carried[state] : Unit::initial(p.direction, H, b, unit);
    const typename Unit::Input input = Unit::load_input(p.direction, H, p.gates_row + b, unit);
    const typename Unit::Result result = Unit::step(cell, recurrent, input, biases, carried);
    if constexpr (kCarriesForward<Cell>) p.direction.carried[state] = Unit::carried_of(result);
    Unit::store(p.direction, p.output + b * p.output_stride + unit, H, row, b, unit, b >= p.rows.has_next, result);
  }
}

template <class Cell, class S>
Status step_forward(const StepForward<S>& step, Stream stream) {
  return launch(step_forward_kernel<Cell, S>, step_launch(step.H, step.rows.active),
                StepForwardLaunch<S>{step, step_unit_bits(step.H)}, stream);
}

#define RNNFAST_STEP_FORWARD(Cell)                                                \
  template Status step_forward<Cell, float>(const StepForward<float>&, Stream);   \
  template Status step_forward<Cell, double>(const StepForward<double>&, Stream); \
  template Status step_forward<Cell, Half>(const StepForward<Half>&, Stream);     \
  template Status step_forward<Cell, BFloat16>(const StepForward<BFloat16>&, Stream);

}  // namespace RNNFAST_NAMESPACE
