// SPDX-License-Identifier: Apache-2.0
// One hidden unit of one sample at one step: what it reads, the cell's mathematics, what it writes. A thread of the
// step kernels and of the persistent kernels does this for the pairs (unit, sample) that it owns.
//
// row: the number of (step, sample) among the N rows; first, last: the sample's first or last step in processing
// order; H: hidden units.
//
// Bytes of a unit and step (C = sizeof Compute<S>). Forward: reads G*C of gates_x and G*C of the recurrent product
// (on the chip in a scan), C of what is carried; writes as much of it, sizeof(S) of y and, in training, S*C, and C
// of c. Backward: reads S*C, with c 2C more, else sizeof(S) of h_t or h_{t-1}, and the incoming gradients; writes
// kDelta*sizeof(S), and where signals are recorded kSignals*C. About 20 flops and one exp an activation, of which
// LSTM has 5, GRU 3, Elman 1.
#pragma once

#include "cuda/params.h"  // first: it names the namespace that the cells are compiled in

#include "cells/all.h"

namespace RNNFAST_NAMESPACE {

// Whether a value of each unit goes from step to step besides the h that y stores: c; or h itself in Compute<S>,
// where the cell adds a share of h_{t-1} to h_t and storage would round it at every step.
template <class Cell>
constexpr bool kCarriesForward = Cell::kHasCell || Cell::kForwardSeesHidden;
// Whether some of a unit's error signal goes back past the recurrent product: dL/dc, or what kDirect passes to
// h_{t-1}.
template <class Cell>
constexpr bool kCarriesBackward = Cell::kHasCell || Cell::kDirect;

// Cell::kApart as bits: device code may read an element of a static array only where its index is constant.
template <class Cell>
constexpr unsigned apart_gates() {
  unsigned bits = 0;
  for (int g = 0; g < Cell::kGates; ++g) bits |= Cell::kApart[g] ? 1u << g : 0u;
  return bits;
}
template <class Cell>
constexpr unsigned kApartGates = apart_gates<Cell>();

template <class Cell, class S>
struct UnitForward {
  using V = Compute<S>;
  static constexpr int G = Cell::kGates;
  using Result = typename Cell::template Forward<V>;

  // Whether gate g wants its recurrent share apart from the input's.
  static RNNFAST_DEVICE constexpr bool apart(int g) { return (kApartGates<Cell> >> g & 1) != 0; }

  // A unit's biases, the same at every step. input: b_ih, with b_hh where both shares add up; recurrent: b_hh of
  // the gates that want their recurrent share apart.
  struct Biases {
    V input[G], recurrent[G];
  };
  static RNNFAST_DEVICE Biases load_biases(const ScanForwardDirection<S>& d, int H, int unit) {
    Biases result;
#pragma unroll
    for (int g = 0; g < G; ++g) {
      const int64_t j = static_cast<int64_t>(g) * H + unit;
      const V hh = d.b_hh ? widen(d.b_hh[j]) : V(0);
      const V ih = d.b_ih ? widen(d.b_ih[j]) : V(0);
      result.input[g] = apart(g) ? ih : ih + hh;
      result.recurrent[g] = apart(g) ? hh : V(0);
    }
    return result;
  }

  // What is carried into the sample's first step.
  static RNNFAST_DEVICE V initial(const ScanForwardDirection<S>& d, int H, int b, int unit) {
    const S* const from = Cell::kHasCell ? d.c0 : d.h0;
    return kCarriesForward<Cell> && from ? widen(from[static_cast<int64_t>(b) * H + unit]) : V(0);
  }

  // The input's share of a step, as it stands in memory: may be read a step ahead.
  struct Input {
    V x[G];
  };
  static RNNFAST_DEVICE Input load_input(const ScanForwardDirection<S>& d, int H, int64_t row, int unit) {
    const V* const from = d.gates_x + row * d.gates_stride + unit;
    Input result;
#pragma unroll
    for (int g = 0; g < G; ++g) result.x[g] = from[static_cast<int64_t>(g) * H];
    return result;
  }

  // recurrent: U h_{t-1} of each gate (zero where it is already part of the input's share, and at a first step
  // without h0).
  static RNNFAST_DEVICE Result step(const Cell& cell, const V (&recurrent)[G], const Input& input,
                                    const Biases& biases, V carried) {
    V a[G], x[G];
#pragma unroll
    for (int g = 0; g < G; ++g) {
      x[g] = input.x[g] + biases.input[g];
      a[g] = apart(g) ? recurrent[g] + biases.recurrent[g] : recurrent[g] + x[g];
    }
    return cell.forward(a, x, carried, carried);  // a cell sees c_{t-1} or h_{t-1}, never both
  }

  static RNNFAST_DEVICE V carried_of(const Result& result) { return Cell::kHasCell ? result.c : result.h; }

  // h: where h_t of this unit goes (an element of y, or of the projection's input).
  static RNNFAST_DEVICE void store(const ScanForwardDirection<S>& d, S* h, int H, int64_t row, int b, int unit,
                                   bool last, const Result& result) {
    *h = narrow<S>(result.h);
    const int64_t state = static_cast<int64_t>(b) * H + unit;
    if (last && d.h_n) d.h_n[state] = narrow<S>(result.h);
    if constexpr (Cell::kHasCell) {
      if (last) d.c_n[state] = narrow<S>(result.c);
      if (d.cells) d.cells[row * H + unit] = result.c;
    }
    if constexpr (Cell::kSaved > 0) {
      if (d.saved) {
        V* const to = d.saved + row * Cell::kSaved * H + unit;
#pragma unroll
        for (int s = 0; s < Cell::kSaved; ++s) to[static_cast<int64_t>(s) * H] = result.saved[s];
      }
    }
  }

  static_assert(!(Cell::kHasCell && Cell::kForwardSeesHidden), "one carried value a unit");
};

// The error signals of a unit, dL/dh and with c dL/dc.
template <class Cell>
constexpr int kSignals = Cell::kHasCell ? 2 : 1;

// Each element within the limit, where that is by value; NaN stays NaN.
template <class V>
RNNFAST_DEVICE V clip_value(V x, const Bptt& bptt) {
  if (bptt.clip != Bptt::kValue) return x;
  const V high = static_cast<V>(bptt.limit), low = -high;
  return high < x ? high : (x < low ? low : x);
}

// `steps` and `behind` in the range of the kernels' ints. A cut depends on the number of steps behind modulo
// `steps`; a segment's own last step receives nothing that is cut here (bindings/checkpoint.cpp has done it).
inline Bptt kernel_bptt(Bptt bptt) {
  if (bptt.steps > 0x7fffffff) bptt.steps = 0;  // more than there can be
  if (bptt.steps > 0) bptt.behind %= bptt.steps;
  return bptt;
}

// Whether truncation keeps sample b's later step from passing anything back to step t. (At its last step nothing
// comes from a later one; what h_n and c_n receive is not cut.)
RNNFAST_DEVICE bool cut_behind(const DeviceSequence& sequence, const Bptt& bptt, int t, int b, bool reverse) {
  if (bptt.steps == 0) return false;
  const unsigned behind = static_cast<unsigned>(bptt.behind), step = static_cast<unsigned>(t);
  unsigned steps = behind + step;
  if (!reverse)
    steps = sequence.lengths ? static_cast<unsigned>(sequence.lengths[b]) - 1 - step
                             : behind + static_cast<unsigned>(sequence.T) - 1 - step;
  return steps > 0 && steps % static_cast<unsigned>(bptt.steps) == 0;
}

template <class Cell, class S>
struct UnitBackward {
  using V = Compute<S>;
  using Result = typename Cell::template Backward<V>;

  // What the forward pass left of a step, and the share of dL/dh_t that is known before the scan: of y_t, and of
  // h_n at the last step. May be read a step ahead.
  struct Loaded {
    typename Cell::template Seen<V> seen;
    V grad;
  };

  // dL/dh_t of the outputs; with a projection this is about its columns, of which there are `columns`.
  static RNNFAST_DEVICE V load_grad(const ScanBackwardDirection<S>& d, int64_t y_stride, int columns, int64_t row,
                                    int b, int column, bool last) {
    V grad = 0;
    if (last && d.grad_h_n) grad = widen(d.grad_h_n[static_cast<int64_t>(b) * columns + column]);
    if (d.grad_y) grad += widen(d.grad_y[row * y_stride + column]);
    return grad;
  }

  // before: the row of the sample's step before, in processing order; not looked at where `first`.
  static RNNFAST_DEVICE Loaded load(const ScanBackwardDirection<S>& d, int64_t y_stride, int H, int64_t row,
                                    int64_t before, int b, int unit, bool first, bool last) {
    Loaded result;
    load_seen(result.seen, d, y_stride, H, row, before, b, unit, first);
    result.grad = load_grad(d, y_stride, H, row, b, unit, last);
    return result;
  }

  static RNNFAST_DEVICE void load_seen(typename Cell::template Seen<V>& seen, const ScanBackwardDirection<S>& d,
                                       int64_t y_stride, int H, int64_t row, int64_t before, int b, int unit,
                                       bool first) {
    const int64_t state = static_cast<int64_t>(b) * H + unit;
    if constexpr (Cell::kSaved > 0) {
      const V* const from = d.saved + row * Cell::kSaved * H + unit;
#pragma unroll
      for (int s = 0; s < Cell::kSaved; ++s) seen.saved[s] = from[static_cast<int64_t>(s) * H];
    }
    if constexpr (Cell::kBackwardSeesHidden) seen.h = widen(d.y[row * y_stride + unit]);
    if constexpr (Cell::kBackwardSeesPrevious) {
      if (!first) {
        seen.h_prev = widen(d.y[before * y_stride + unit]);
      } else {
        seen.h_prev = d.h0 ? widen(d.h0[state]) : V(0);
      }
    }
    if constexpr (Cell::kHasCell) {
      seen.c = d.cells[row * H + unit];
      if (!first) {
        seen.c_prev = d.cells[before * H + unit];
      } else {
        seen.c_prev = d.c0 ? widen(d.c0[state]) : V(0);
      }
    }
  }

  // What is carried back into the sample's last step.
  static RNNFAST_DEVICE V initial(const ScanBackwardDirection<S>& d, int H, int b, int unit) {
    return Cell::kHasCell && d.grad_c_n ? widen(d.grad_c_n[static_cast<int64_t>(b) * H + unit]) : V(0);
  }

  // The total dL/dh_t and dL/dc_t, before their limits. returned: delta_{t+1} U, zero at the last step or where
  // cut; carried: what the later step left, likewise (initial() at the last step); dh: limited.
  static RNNFAST_DEVICE V hidden_signal(V grad, V returned, V carried) {
    const V dh = grad + returned;
    return Cell::kDirect ? dh + carried : dh;
  }
  static RNNFAST_DEVICE V cell_signal(const Cell& cell, const typename Cell::template Seen<V>& seen, V dh,
                                      V carried) {
    if constexpr (Cell::kHasCell) {
      return carried + cell.cell_gradient(dh, seen);
    } else {
      return dh;
    }
  }

  // All of a step, with limits by value. result.carry: to the step before. signals: of the unit, `H` from one to
  // the other, or null.
  static RNNFAST_DEVICE Result step(const Cell& cell, const Loaded& loaded, const Bptt& bptt, V returned, V carried,
                                    V* signals, int H) {
    V dh = hidden_signal(loaded.grad, returned, carried);
    if (signals) signals[0] = dh;
    dh = clip_value(dh, bptt);
    V dc = cell_signal(cell, loaded.seen, dh, carried);
    if constexpr (Cell::kHasCell) {
      if (signals) signals[H] = dc;
      dc = clip_value(dc, bptt);
    }
    return cell.backward(dh, dc, loaded.seen);
  }

  // Block k of delta as it is stored: `delta + k * H` for delta at (row, unit).
  static RNNFAST_DEVICE S delta_of(const Result& result, int k) { return narrow<S>(result.delta[k]); }

  // The gradients of the initial state, from the sample's first step. returned: its delta U, of which h has
  // `columns` (H, or those of a projection).
  static RNNFAST_DEVICE void store_initial_hidden(const ScanBackwardDirection<S>& d, int columns, int b, int column,
                                                  V returned, V carried) {
    if (d.grad_h0)
      d.grad_h0[static_cast<int64_t>(b) * columns + column] =
          narrow<S>(Cell::kDirect ? returned + carried : returned);
  }
  static RNNFAST_DEVICE void store_initial_cell(const ScanBackwardDirection<S>& d, int H, int b, int unit,
                                                V carried) {
    if (Cell::kHasCell && d.grad_c0) d.grad_c0[static_cast<int64_t>(b) * H + unit] = narrow<S>(carried);
  }
  static RNNFAST_DEVICE void store_initial(const ScanBackwardDirection<S>& d, int H, int b, int unit, V returned,
                                           V carried) {
    store_initial_hidden(d, H, b, unit, returned, carried);
    store_initial_cell(d, H, b, unit, carried);
  }
};

}  // namespace RNNFAST_NAMESPACE
