// SPDX-License-Identifier: Apache-2.0
// What a thread of the team is given: the layer's arguments, the plan, workspace, barriers.
#pragma once

#include <cstdint>

#include "core/params.h"
#include "cpu/plan.h"
#include "cpu/team.h"

namespace rnnfast {

// Workspace of one direction, as offsets in elements. `lanes` is that of the target in use; a plan and a workspace
// hold for one target.
struct LstmForwardSpace {
  int64_t packed_hh = 0, packed_ih = 0, bias = 0, gates_x = 0, zeros = 0;
  int64_t size = 0;  // a multiple of 16 elements
};
LstmForwardSpace forward_space(const LayerShape& shape, const LayerPlan& plan, int lanes, bool training);

struct LstmBackwardSpace {
  int64_t delta = 0, packed_hh = 0, packed_ih = 0, dc = 0;  // of one direction
  int64_t direction_size = 0;
  int64_t zeros = 0;                   // shared
  int64_t threads = 0;                 // first thread's GEMM buffers
  int64_t thread_a = 0, thread_b = 0;  // sizes of a thread's two buffers
  int64_t size = 0;
};
LstmBackwardSpace backward_space(const LayerShape& shape, const LayerPlan& plan, int lanes, int64_t rows);

template <class Args, class Space, class T>
struct LstmJob {
  const Args* args = nullptr;
  const LayerPlan* plan = nullptr;
  const Space* space = nullptr;
  T* workspace = nullptr;  // 64-byte aligned; forward: `size` elements for each direction
  Barrier* all = nullptr;
  Barrier* group = nullptr;  // [2]
};

template <class T>
using LstmForwardJob = LstmJob<LstmForward<T>, LstmForwardSpace, T>;
template <class T>
using LstmBackwardJob = LstmJob<LstmBackward<T>, LstmBackwardSpace, T>;

}  // namespace rnnfast
