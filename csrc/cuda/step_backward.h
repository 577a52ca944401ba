// SPDX-License-Identifier: Apache-2.0
// The pointwise part of a backward step, what a projection adds to it, and the norms of the error signals. Bytes
// and flops of a unit: unit.h. Threads of a warp take neighbouring units, so every access is coalesced.
//
// Limits by norm need a sum over all units of a sample before any of them can go on: a launch of its own for dL/dh,
// and one for dL/dc. They compute the signals and leave a factor for each sample; the pointwise part computes them
// again, which costs less than to write and read them. Recording takes the same two launches. A norm's launch reads
// what the signal is made of, with c S*C + 3C + 2 sizeof(S) bytes a unit at most, and 3 flops a unit. What a
// projection receives: P columns of a sample, 2C + 2 sizeof(S) bytes and 2 flops each. Initial gradients: 2C read,
// 2 sizeof(S) written, once for each sample and unit.
#pragma once

#include "cuda/measure.h"
#include "cuda/step.h"
#include "cuda/unit.h"

namespace RNNFAST_NAMESPACE {

template <class S>
struct StepBackwardLaunch {
  StepBackward<S> step;
  int unit_bits;
};

// The error signals of sample b at the step.
template <class Cell, class S>
struct StepSignals {
  using Unit = UnitBackward<Cell, S>;
  using V = Compute<S>;
  const StepBackward<S>& p;
  int b;
  bool last, received;  // the sample's last step; something comes back from a later one

  RNNFAST_DEVICE StepSignals(const StepBackward<S>& step, int sample) : p(step), b(sample) {
    last = b >= p.rows.has_next;
    received = !last && !cut_behind(p.sequence, p.bptt, p.rows.t, b, p.reverse);
  }

  RNNFAST_DEVICE V carried(int unit) const {
    if constexpr (!kCarriesBackward<Cell>) return V(0);
    if (last) return Unit::initial(p.direction, p.H, b, unit);
    return received ? p.direction.carried[static_cast<int64_t>(b) * p.H + unit] : V(0);
  }
  // The total dL/dh_t, of one of its P columns, before its limit.
  RNNFAST_DEVICE V hidden(int column) const {
    const V grad = Unit::load_grad(p.direction, p.y_stride, p.P, p.rows.row + b, b, column, last);
    const V returned = received ? p.returned[static_cast<int64_t>(b) * p.P + column] : V(0);
    return Unit::hidden_signal(grad, returned, Cell::kDirect ? carried(column) : V(0));
  }
  RNNFAST_DEVICE V limited_hidden(int column) const {
    const V dh = hidden(column);
    return p.hidden_factor ? dh * p.hidden_factor[b] : clip_value(dh, p.bptt);
  }
  // The gradient of the cell's output.
  RNNFAST_DEVICE V output(int unit) const {
    return p.grad_output ? p.grad_output[static_cast<int64_t>(b) * p.H + unit] : limited_hidden(unit);
  }
  RNNFAST_DEVICE typename Cell::template Seen<V> seen(int unit) const {
    typename Cell::template Seen<V> result;
    const int64_t before = RNNFAST_MUTATION("step backward: row before") ? p.rows.row : p.rows.before;
    Unit::load_seen(result, p.direction, p.y_stride, p.H, p.rows.row + b, before + b, b, unit,
                    b >= p.rows.had_step);
    return result;
  }
};

template <class Cell, class S>
RNNFAST_KERNEL(kStepThreads, 4)
step_backward_kernel(StepBackwardLaunch<S> launched) {
  using Unit = UnitBackward<Cell, S>;
  using V = Compute<S>;
  const StepBackward<S>& p = launched.step;
  const StepPairs pairs(launched.unit_bits);
  const int unit = pairs.unit, H = p.H;
  if (unit >= H) return;
  const Cell cell(p.variant);
  for (int b = pairs.sample; b < p.rows.active; b += pairs.stride) {
    const StepSignals<Cell, S> signals(p, b);
    const int64_t row = p.rows.row + b, state = static_cast<int64_t>(b) * H + unit;
    const typename Cell::template Seen<V> seen = signals.seen(unit);
    const V dh = signals.output(unit);
    V dc = Unit::cell_signal(cell, seen, dh, signals.carried(unit));
    if constexpr (Cell::kHasCell) {
      dc = p.cell_factor ? dc * p.cell_factor[b] : clip_value(dc, p.bptt);
      if (p.cell_output) p.cell_output[row * H + unit] = narrow<S>(cell.output(seen));
    }
    const typename Unit::Result result = cell.backward(dh, dc, seen);
    S* const delta = p.direction.delta + row * Cell::kDelta * H + unit;
#pragma unroll
    for (int k = 0; k < Cell::kDelta; ++k) delta[static_cast<int64_t>(k) * H] = Unit::delta_of(result, k);
    if constexpr (kCarriesBackward<Cell>) p.direction.carried[state] = result.carry;
  }
}

template <class Cell, class S>
RNNFAST_KERNEL(kStepThreads, 4)
step_receive_kernel(StepBackwardLaunch<S> launched) {
  const StepBackward<S>& p = launched.step;
  const StepPairs pairs(launched.unit_bits);
  if (pairs.unit >= p.P) return;
  for (int b = pairs.sample; b < p.rows.active; b += pairs.stride)
    p.grad_hidden[(p.rows.row + b) * p.P + pairs.unit] =
        narrow<S>(StepSignals<Cell, S>(p, b).limited_hidden(pairs.unit));
}

template <class Cell, class S>
RNNFAST_KERNEL(kStepThreads, 4)
step_initial_kernel(StepBackwardLaunch<S> launched) {
  using Unit = UnitBackward<Cell, S>;
  const StepBackward<S>& p = launched.step;
  const StepPairs pairs(launched.unit_bits);
  const int unit = pairs.unit;  // of h0 (P) and of c0 (H): a projection may have more features than the cell
  for (int b = p.rows.had_step + pairs.sample; b < p.rows.active; b += pairs.stride) {
    Compute<S> carried = 0;
    if constexpr (kCarriesBackward<Cell>)
      if (unit < p.H) carried = p.direction.carried[static_cast<int64_t>(b) * p.H + unit];
    if (p.direction.grad_h0 && unit < p.P)
      Unit::store_initial_hidden(p.direction, p.P, b, unit, p.returned[static_cast<int64_t>(b) * p.P + unit],
                                 carried);
    if (unit < p.H) Unit::store_initial_cell(p.direction, p.H, b, unit, carried);
  }
}

// A block for each sample. Per unit as in the pointwise part, without its writes.
template <class Cell, class S>
RNNFAST_KERNEL(kMeasureThreads, 2)
step_hidden_norms_kernel(StepBackward<S> p) {
  const int b = block_index();
  const StepSignals<Cell, S> signals(p, b);
  const auto seen = measure<Compute<S>>(p.P, p.bptt, [&](int column) { return signals.hidden(column); });
  if (thread_index() > 0) return;
  if (p.hidden_factor) p.hidden_factor[b] = seen.factor;
  if (p.record) record_hidden(p.record + (p.rows.row + b) * kRecorded, seen);
}

template <class Cell, class S>
RNNFAST_KERNEL(kMeasureThreads, 2)
step_cell_norms_kernel(StepBackward<S> p) {
  const int b = block_index();
  const Cell cell(p.variant);
  const StepSignals<Cell, S> signals(p, b);
  const auto seen = measure<Compute<S>>(p.H, p.bptt, [&](int unit) {
    return UnitBackward<Cell, S>::cell_signal(cell, signals.seen(unit), signals.output(unit),
                                              signals.carried(unit));
  });
  if (thread_index() > 0) return;
  if (p.cell_factor) p.cell_factor[b] = seen.factor;
  if (p.record) record_cell(p.record + (p.rows.row + b) * kRecorded, seen);
}

template <class Cell, class S>
Status step_hidden_norms(const StepBackward<S>& step, Stream stream) {
  Launch l;
  l.grid_x = step.rows.active;
  l.block = l.max_threads = kMeasureThreads;
  return launch(step_hidden_norms_kernel<Cell, S>, l, step, stream);
}

template <class Cell, class S>
Status step_cell_norms(const StepBackward<S>& step, Stream stream) {
  Launch l;
  l.grid_x = step.rows.active;
  l.block = l.max_threads = kMeasureThreads;
  return launch(step_cell_norms_kernel<Cell, S>, l, step, stream);
}

template <class Cell, class S>
Status step_receive(const StepBackward<S>& step, Stream stream) {
  return launch(step_receive_kernel<Cell, S>, step_launch(step.P, step.rows.active),
                StepBackwardLaunch<S>{step, step_unit_bits(step.P)}, stream);
}

template <class Cell, class S>
Status step_backward(const StepBackward<S>& step, Stream stream) {
  return launch(step_backward_kernel<Cell, S>, step_launch(step.H, step.rows.active),
                StepBackwardLaunch<S>{step, step_unit_bits(step.H)}, stream);
}

template <class Cell, class S>
Status step_initial(const StepBackward<S>& step, Stream stream) {
  const auto units = step.P > step.H ? step.P : step.H;
  return launch(step_initial_kernel<Cell, S>, step_launch(units, step.rows.active - step.rows.had_step),
                StepBackwardLaunch<S>{step, step_unit_bits(units)}, stream);
}

#define RNNFAST_STEP_BACKWARD_OF(Cell, S)                                     \
  template Status step_hidden_norms<Cell, S>(const StepBackward<S>&, Stream); \
  template Status step_cell_norms<Cell, S>(const StepBackward<S>&, Stream);   \
  template Status step_receive<Cell, S>(const StepBackward<S>&, Stream);      \
  template Status step_backward<Cell, S>(const StepBackward<S>&, Stream);     \
  template Status step_initial<Cell, S>(const StepBackward<S>&, Stream);
#define RNNFAST_STEP_BACKWARD(Cell)      \
  RNNFAST_STEP_BACKWARD_OF(Cell, float)  \
  RNNFAST_STEP_BACKWARD_OF(Cell, double) \
  RNNFAST_STEP_BACKWARD_OF(Cell, Half)   \
  RNNFAST_STEP_BACKWARD_OF(Cell, BFloat16)

}  // namespace RNNFAST_NAMESPACE
