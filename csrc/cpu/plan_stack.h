// SPDX-License-Identifier: Apache-2.0
// The plan of a whole stack in inference: which layers run at the same time, and how many steps at a time go
// through all of them. Pure, as cpu/plan.h.
#pragma once

#include "cpu/plan.h"

namespace rnnfast {

struct StackPlan {
  int threads = 1;
  // 1: the layers run one after another, all threads on each. More: a wavefront. The layers are dealt out to so
  // many stages, one thread each; in wave w stage i runs chunk w - i of the sequence, and threads meet once a wave.
  int stages = 1;
  int64_t chunk_steps = 1;  // steps that go through all layers before the next ones enter
  bool step = false;        // one step, by the kernels of cpu/step.h
  bool pack = false;        // every layer's weights are packed once, before the first chunk
  LayerPlan first, above;   // of a chunk: the first layer; the others, which read the output of the one below

  const LayerPlan& layer(int index) const { return index == 0 ? first : above; }
};

// first: the first layer on the whole sequence; `prepacked`: all layers' weights are packed already.
StackPlan plan_stack(const LayerShape& first, int layers, const Machine& machine);

// A layer of the stack: the others read what the one below wrote.
LayerShape stack_layer(const LayerShape& first, int index);

// Multiply-adds of one step of all layers.
int64_t stack_step_work(const LayerShape& first, int layers);

}  // namespace rnnfast
