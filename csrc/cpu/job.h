// SPDX-License-Identifier: Apache-2.0
// What a thread of the team is given: the layer's arguments, the plan, workspace, barriers.
#pragma once

#include <cstdint>

#include "cells/list.h"
#include "core/params.h"
#include "cpu/plan.h"
#include "cpu/team.h"

namespace rnnfast {

// Offsets and sizes in elements; each piece begins on a cache line. `lanes` is that of the target in use: a plan
// and a workspace hold for one target.

// The packed weights of one direction. All by vectors of units: [vector][K][G][lanes].
struct PackedSpace {
  int64_t hh = 0, ih = 0, hr = 0;
  int64_t bias =
      0;  // [vector][2][G][lanes]: the input's (with the recurrent one where they add), the recurrent one
  int64_t size = 0;
};
// with_ih: W_ih too (the others always).
PackedSpace packed_space(const CellInfo& cell, const LayerShape& shape, int lanes, bool with_ih = true);

// Scratch memory of one direction's forward scan. Packed weights, where the call packs them, come first.
struct ForwardSpace {
  PackedSpace packed;
  int64_t panel = 0, panel_size = 0;  // a panel of W_ih for each thread, where it is packed a panel at a time
  int64_t gates_x = 0, zeros = 0;
  int64_t cell_output = 0;  // [B, H] of a step, where there is a projection
  int64_t size = 0;         // a multiple of 16 elements
};
ForwardSpace forward_space(const CellInfo& cell, const LayerShape& shape, const LayerPlan& plan, int lanes,
                           bool training);

struct BackwardSpace {
  // Of one direction.
  int64_t delta = 0;                     // [rows of a chunk, delta * H]
  int64_t edge = 0;                      // [B, G * H]: the recurrent share of delta at the step a chunk ends with
  int64_t grad_h = 0;                    // total dL/dh: projection: [rows of a chunk, P]; under control: [B, P]
  int64_t cell_output = 0;               // projection: [rows of a chunk, H], h before the projection
  int64_t packed_hh = 0, packed_hr = 0;  // W_hh, W_hr
  int64_t carry = 0;                     // [B, H]: dc, or what goes back to h past the gates
  int64_t grad_output = 0;               // projection, with norms: [B, H], the gradient of the cell's output
  int64_t partials = 0;                  // with norms: [2, threads, B, 2]; see cpu/control.h
  int64_t direction_size = 0;
  // Shared.
  int64_t zeros = 0;
  int64_t grad_x = 0;                  // the second direction's dL/dx, where directions run side by side
  int64_t threads = 0;                 // first thread's GEMM buffers
  int64_t thread_a = 0, thread_b = 0;  // sizes of a thread's two buffers
  int64_t size = 0;
};
BackwardSpace backward_space(const CellInfo& cell, const LayerShape& shape, const LayerPlan& plan, int lanes,
                             int64_t rows, bool wants_grad_x, const Bptt& bptt = {}, bool record = false);

template <class Args, class Space, class T>
struct Job {
  const Args* args = nullptr;
  const LayerPlan* plan = nullptr;
  const Space* space = nullptr;
  T* workspace = nullptr;  // 64-byte aligned; forward: `size` elements for each direction
  Barrier* all = nullptr;
  Barrier* group = nullptr;  // [2]
};

template <class T>
using ForwardJob = Job<LayerForward<T>, ForwardSpace, T>;
template <class T>
using BackwardJob = Job<LayerBackward<T>, BackwardSpace, T>;

// Packs the weights of every direction into `packed` ([D][PackedSpace::size]).
template <class T>
struct PackJob {
  const LayerInputs<T>* in = nullptr;
  const PackedSpace* space = nullptr;
  T* packed = nullptr;
};

}  // namespace rnnfast
