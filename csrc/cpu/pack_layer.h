// SPDX-License-Identifier: Apache-2.0
// A layer's weights into panels, for the forward pass: once a call, or once for all (a frozen layer).
#pragma once

#include "cells/all.h"
#include "cpu/job.h"
#include "cpu/pack.h"

namespace RNNFAST_NAMESPACE {

// One direction's weights into panels; see PackedSpace. This thread's share of the vectors of units.
template <class Cell, class T>
void pack_direction(const LayerInputs<T>& in, int direction, const PackedSpace& space, bool with_ih, T* packed,
                    int index, int count) {
  constexpr int N = kLanes<T>, G = Cell::kGates;
  const LayerWeights<T>& w = in.weights[direction];
  const int64_t H = in.H;
  const Range share = split_range(vectors_of<T>(H), index, count);
  for (int64_t p = share.begin; p < share.end; ++p) {
    const int64_t unit = p * N;
    const int valid = int(H - unit < N ? H - unit : N);
    pack_gate_panel(w.w_hh, G, H, in.P, unit, valid, packed + space.hh + p * in.P * G * N);
    if (with_ih) pack_gate_panel(w.w_ih, G, H, in.I, unit, valid, packed + space.ih + p * in.I * G * N);
    T* bias = packed + space.bias + p * 2 * G * N;
    for (int g = 0; g < G; ++g)
      for (int l = 0; l < N; ++l) {
        const bool present = w.b_ih != nullptr && l < valid;
        const T b_ih = present ? w.b_ih[g * H + unit + l] : T(0), b_hh = present ? w.b_hh[g * H + unit + l] : T(0);
        bias[g * N + l] = Cell::kApart[g] ? b_ih : b_ih + b_hh;
        bias[(G + g) * N + l] = b_hh;
      }
  }
  if (!in.projection) return;
  const Range outputs = split_range(vectors_of<T>(in.P), index, count);
  for (int64_t p = outputs.begin; p < outputs.end; ++p)
    pack_gate_panel(w.w_hr, 1, in.P, H, p * N, int(in.P - p * N < N ? in.P - p * N : N),
                    packed + space.hr + p * H * N);
}

template <class Cell, class T>
void layer_pack(const PackJob<T>& job, int index, int count) {
  for (int d = 0; d < job.in->directions; ++d)
    pack_direction<Cell>(*job.in, d, *job.space, true, job.packed + d * job.space->size, index, count);
}

}  // namespace RNNFAST_NAMESPACE
