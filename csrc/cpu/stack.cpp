// SPDX-License-Identifier: Apache-2.0
#include "cpu/stack.h"

#include <algorithm>

namespace rnnfast {
namespace {

// What all threads of a call share.
template <class T>
class StackRun {
 public:
  StackRun(const Kernels& target, const StackCall<T>& call, const StackPlan& plan, const StackSpace& space,
           T* memory)
      : kernels_(target.of(call.kind, T{})),
        step_(target.of(call.kind, T{}).step),
        call_(call),
        plan_(plan),
        space_(space),
        memory_(memory),
        B_(call.in.sequence.B),
        width_(call.in.directions * call.in.P) {}

  void run(int index, int count) {
    if (plan_.pack) pack(index, count);
    if (plan_.step) {
      run_step(index, count);
    } else if (plan_.stages > 1) {
      run_waves(index, count);
    } else {
      for (int64_t chunk = 0; chunk < chunks(); ++chunk)
        for (int layer = 0; layer < call_.count; ++layer) {
          const int threads = std::min(count, plan_.layer(layer).threads);
          if (index < threads) run_layer(layer, chunk, memory_ + space_.scratch, kernels_.forward, index, threads);
          if (chunk + 1 < chunks() || layer + 1 < call_.count) all_.wait(count);
        }
    }
  }

 private:
  int64_t chunks() const { return (call_.in.sequence.T + plan_.chunk_steps - 1) / plan_.chunk_steps; }

  void pack(int index, int count) {
    for (int l = 0; l < call_.count; ++l) {
      LayerInputs<T> in = layer_inputs(l);
      kernels_.pack({&in, &space_.layer[l > 0].packed, packed_by_call(l)}, index, count);
    }
    all_.wait(count);
  }

  // Thread i runs stages i, i + count, ... : usually one each, but the runtime may give fewer threads than asked
  // for.
  void run_waves(int index, int count) {
    for (int64_t wave = 0; wave < chunks() + plan_.stages - 1; ++wave) {
      for (int stage = index; stage < plan_.stages; stage += count) {
        const int64_t chunk = wave - stage;
        if (chunk < 0 || chunk >= chunks()) continue;
        const Range layers = split_range(call_.count, stage, plan_.stages);
        for (int64_t l = layers.begin; l < layers.end; ++l)
          run_layer(int(l), chunk, memory_ + space_.scratch + stage * space_.scratch_size, kernels_.forward, 0, 1);
      }
      all_.wait(count);
    }
  }

  // A step kernel leaves h_n alone, which may be the h0 that other threads read. Once a layer's threads have met,
  // it is free.
  void run_step(int index, int count) {
    for (int l = 0; l < call_.count; ++l) {
      const T* y = run_layer(l, 0, memory_ + space_.scratch, step_, index, count);
      all_.wait(count);
      const Range share = split_range(B_ * width_, index, count);
      std::copy(y + share.begin, y + share.end, call_.h_n + l * B_ * width_ + share.begin);
    }
  }

  // Returns where its output stands.
  T* run_layer(int layer, int64_t chunk, T* scratch, void (*kernel)(const ForwardJob<T>&, int, int), int index,
               int count) {
    const int64_t first = chunk * plan_.chunk_steps;
    LayerForward<T> args;
    args.in = layer_inputs(layer);
    Sequence& sequence = args.in.sequence;
    sequence.T = std::min(plan_.chunk_steps, sequence.T - first);  // more than one chunk: dense only
    if (layer == 0) {
      args.in.x = call_.in.x + first * call_.in.x_step;
    } else {
      args.in.x = between(layer - 1, chunk);
      args.in.x_step = sequence.offsets ? 0 : B_ * width_;
      args.in.x_row = width_;
    }
    const int64_t state = int64_t(layer) * call_.in.directions * B_;
    args.h_n = call_.h_n + state * call_.in.P;
    if (call_.c_n) args.c_n = call_.c_n + state * call_.in.H;
    const T *h0 = chunk == 0 ? call_.in.h0 : call_.h_n, *c0 = chunk == 0 ? call_.in.c0 : call_.c_n;
    args.in.h0 = h0 ? h0 + state * call_.in.P : nullptr;
    args.in.c0 = c0 ? c0 + state * call_.in.H : nullptr;
    args.y = layer + 1 == call_.count ? call_.y + first * B_ * width_ : between(layer, chunk);
    args.packed = plan_.pack ? packed_by_call(layer) : call_.layers[layer].packed;
    const ForwardJob<T> job{&args, &plan_.layer(layer), &space_.layer[layer > 0], scratch, &layer_, group_};
    kernel(job, index, count);
    return args.y;
  }

  LayerInputs<T> layer_inputs(int layer) const {
    LayerInputs<T> in = call_.in;
    if (layer > 0) in.I = width_;
    for (int d = 0; d < in.directions; ++d) in.weights[d] = call_.layers[layer].weights[d];
    return in;
  }

  T* packed_by_call(int layer) const {
    const int64_t size = call_.in.directions * space_.layer[layer > 0].packed.size;
    return memory_ + space_.weights[layer > 0] + std::max(0, layer - 1) * size;
  }

  // One layer after another: two places in turn. A wavefront: two for each layer, since the one above still reads
  // the chunk before.
  T* between(int layer, int64_t chunk) const {
    const int64_t place = plan_.stages > 1 ? 2 * layer + chunk % 2 : layer % 2;
    return memory_ + space_.between + place * space_.between_size;
  }

  const CellKernels<T>& kernels_;
  void (*step_)(const ForwardJob<T>&, int, int);
  const StackCall<T>& call_;
  const StackPlan& plan_;
  const StackSpace& space_;
  T* memory_;
  int64_t B_, width_;
  Barrier all_;               // every thread of the call, between layers
  Barrier layer_, group_[2];  // the threads that run a layer, within it
};

}  // namespace

StackSpace stack_space(const CellInfo& cell, const LayerShape& first, int layers, const StackPlan& plan,
                       int lanes) {
  StackSpace space;
  const int64_t D = first.directions;
  const auto rounded = [](int64_t n) { return (n + 15) / 16 * 16; };
  for (int i = 0; i < 2; ++i) {
    LayerShape s = stack_layer(first, layers > 1 ? i : 0);
    s.T = plan.chunk_steps;
    s.prepacked = first.prepacked || plan.pack;
    space.layer[i] = forward_space(cell, s, plan.layer(i), lanes, false);
    space.scratch_size = std::max(space.scratch_size, D * space.layer[i].size);
  }
  int64_t size = 0;
  const auto take = [&](int64_t n) {
    const int64_t offset = size;
    size += n;
    return offset;
  };
  if (plan.pack) {
    space.weights[0] = take(D * space.layer[0].packed.size);
    space.weights[1] = take((layers - 1) * D * space.layer[1].packed.size);
  }
  space.scratch = take(plan.stages * space.scratch_size);
  const int64_t rows = plan.chunk_steps * first.B;
  space.between_size = rounded(rows * D * first.P);
  const int places = plan.stages > 1 ? 2 * (layers - 1) : std::min(2, layers - 1);
  space.between = take(places * space.between_size);
  space.size = size;
  return space;
}

template <class T>
void run_stack(const Kernels& target, const StackCall<T>& call, const StackPlan& plan, const StackSpace& space,
               T* memory) {
  StackRun<T> run(target, call, plan, space, memory);
  run_team(
      plan.threads, [](void* self, int index, int count) { static_cast<StackRun<T>*>(self)->run(index, count); },
      &run);
}

template void run_stack<float>(const Kernels&, const StackCall<float>&, const StackPlan&, const StackSpace&,
                               float*);
template void run_stack<double>(const Kernels&, const StackCall<double>&, const StackPlan&, const StackSpace&,
                                double*);

}  // namespace rnnfast
