// SPDX-License-Identifier: Apache-2.0
// A whole stack of layers in inference: one parallel region a call. Long sequences go through all layers in chunks
// of steps, so that what stands between the layers does not grow with them.
#pragma once

#include <vector>

#include "cpu/kernels.h"
#include "cpu/plan_stack.h"

namespace rnnfast {

template <class T>
struct StackLayer {
  LayerWeights<T> weights[2];  // where packed is null
  const T* packed = nullptr;   // [D][PackedSpace::size] for the target in use
};

template <class T>
struct StackCall {
  CellKind kind = CellKind(0);
  // The first layer's inputs (its weights unused): x, h0 and c0 [L*D, B, .], or null for zeros. h0 may be h_n, c0
  // may be c_n.
  LayerInputs<T> in;
  const StackLayer<T>* layers = nullptr;  // [L]
  int count = 1;                          // L
  T *y = nullptr, *h_n = nullptr, *c_n = nullptr;
};

// Offsets and sizes in elements of what the call needs besides.
struct StackSpace {
  ForwardSpace layer[2];                  // the first layer, the others
  int64_t weights[2] = {0, 0};            // packed by the call: the first layer's; the others', one after another
  int64_t scratch = 0, scratch_size = 0;  // of a stage, or of all threads
  int64_t between = 0, between_size = 0;  // the output of a chunk of a layer, where another reads it
  int64_t size = 0;
};
StackSpace stack_space(const CellInfo& cell, const LayerShape& first, int layers, const StackPlan& plan, int lanes);

// memory: StackSpace::size elements, 64-byte aligned.
template <class T>
void run_stack(const Kernels& target, const StackCall<T>& call, const StackPlan& plan, const StackSpace& space,
               T* memory);

extern template void run_stack<float>(const Kernels&, const StackCall<float>&, const StackPlan&, const StackSpace&,
                                      float*);
extern template void run_stack<double>(const Kernels&, const StackCall<double>&, const StackPlan&,
                                       const StackSpace&, double*);

}  // namespace rnnfast
