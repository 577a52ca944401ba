// SPDX-License-Identifier: Apache-2.0
// Stacks against the scalar loop, layer by layer: one step, chunks of steps, the wavefront; every target.
#include "cpu/stack.h"

#include <cmath>
#include <memory>
#include <stdexcept>

#include "check.h"
#include "problem.h"

using namespace rnnfast;

namespace {

// Layers of one size, each fed by the one below, and what the scalar loop makes of them.
struct Stack {
  std::vector<std::unique_ptr<Problem>> layers;
  Doubles h0, c0, y, h_n, c_n;

  Stack(CellKind kind, int64_t T, int64_t B, int64_t I, int64_t H, int64_t P, int D, int count) {
    for (int l = 0; l < count; ++l) {
      layers.push_back(std::make_unique<Problem>(kind, T, B, l ? D * P : I, H, P, D, false, true));
      Problem& p = *layers.back();
      if (l) p.x = y;
      Buffers<double> b(p);
      run_reference(p, b);
      y = b.y;
      const auto append = [](Doubles& to, const Doubles& from) { to.insert(to.end(), from.begin(), from.end()); };
      append(h0, p.h0), append(c0, p.c0), append(h_n, b.h_n), append(c_n, b.c_n);
    }
  }
};

template <class T>
void compare(const char* what, const std::vector<T>& got, const Doubles& want, const char* target, const Stack& s,
             const StackPlan& plan) {
  const Problem& p = *s.layers[0];
  for (size_t i = 0; i < want.size(); ++i) {
    if (std::abs(double(got[i]) - want[i]) <= (sizeof(T) == 4 ? 2e-5 : 1e-12) * (1 + std::abs(want[i]))) continue;
    CHECK(false,
          "%s of %s on %s, %zu layers, %d threads, %d stages, chunk %lld, T=%lld B=%lld H=%lld P=%lld D=%d: [%zu] "
          "got %g, expected %g",
          what, p.cell.name, target, s.layers.size(), plan.threads, plan.stages, (long long)plan.chunk_steps,
          (long long)p.T, (long long)p.B, (long long)p.H, (long long)p.P, p.D, i, double(got[i]), want[i]);
    return;
  }
}

template <class T>
void check_stack(const Kernels& target, const Stack& s, bool prepacked, StackPlan (*change)(StackPlan, int),
                 int threads) {
  const Problem& first = *s.layers[0];
  const int lanes = target.vector_bytes / int(sizeof(T)), count = int(s.layers.size());
  std::vector<std::unique_ptr<Buffers<T>>> buffers;
  std::vector<StackLayer<T>> layers;
  std::vector<std::vector<T>> packed;
  for (const auto& p : s.layers) {
    buffers.push_back(std::make_unique<Buffers<T>>(*p));
    const LayerInputs<T>& in = buffers.back()->in;
    StackLayer<T> layer;
    for (int d = 0; d < p->D; ++d) layer.weights[d] = in.weights[d];
    if (prepacked) {
      LayerShape shape;
      shape.I = p->I, shape.H = p->H, shape.P = p->P, shape.projection = p->projection();
      const PackedSpace space = packed_space(p->cell, shape, lanes);
      packed.emplace_back(size_t(space.size * p->D));
      target.of(p->kind, T{}).pack({&in, &space, packed.back().data()}, 0, 1);
      layer.packed = packed.back().data();
    }
    layers.push_back(layer);
  }
  LayerShape shape;
  shape.T = first.T, shape.B = first.B, shape.I = first.I, shape.H = first.H, shape.P = first.P;
  shape.gates = first.cell.gates, shape.directions = first.D, shape.element_bytes = int(sizeof(T));
  shape.projection = first.projection(), shape.prepacked = prepacked;
  const StackPlan plan = change(plan_stack(shape, count, {threads, 64 << 10}), threads);
  const StackSpace space = stack_space(first.cell, shape, count, plan, lanes);
  std::vector<T> memory(static_cast<size_t>(space.size)), y(s.y.size());
  // The state in place, as a stream has it.
  std::vector<T> h(s.h0.begin(), s.h0.end()), c(s.c0.begin(), s.c0.end());
  StackCall<T> call;
  call.kind = first.kind;
  call.in = buffers[0]->in;
  call.in.h0 = call.h_n = h.data();
  if (first.cell.has_cell) call.in.c0 = call.c_n = c.data();
  call.layers = layers.data(), call.count = count, call.y = y.data();
  run_stack(target, call, plan, space, memory.data());
  compare("y", y, s.y, target.name, s, plan);
  compare("h_n", h, s.h_n, target.name, s, plan);
  compare("c_n", c, first.cell.has_cell ? s.c_n : Doubles(), target.name, s, plan);
}

void check_everywhere(const Stack& s, bool prepacked, StackPlan (*change)(StackPlan, int), int most_threads) {
  for (const Kernels* target : kernels_available())
    for (int threads = 1; threads <= most_threads; ++threads) {
      check_stack<float>(*target, s, prepacked, change, threads);
      check_stack<double>(*target, s, prepacked, change, threads);
    }
}

// Small problems would be run by one thread.
StackPlan on_all_threads(StackPlan plan, int threads) {
  plan.threads = plan.first.threads = plan.above.threads = threads;
  return plan;
}

// Of a layer on a chunk, as plan_stack would have it.
StackPlan in_chunks(StackPlan plan, int threads) {
  plan = on_all_threads(plan, threads);
  plan.chunk_steps = 3;
  plan.pack = true;
  for (LayerPlan* layer : {&plan.first, &plan.above}) {
    layer->weights = Weights::kPacked;
    layer->input = InputWeights::kPacked;
    layer->chunk_steps = 2;
  }
  return plan;
}

StackPlan as_wavefront(StackPlan plan, int threads) {
  plan = in_chunks(plan, 1);
  plan.threads = threads;
  plan.stages = 2;
  return plan;
}

const CellKind kKinds[] = {CellKind::lstm, CellKind::gru, CellKind::rnn_tanh, CellKind::rnn_relu,
                           CellKind::rnn_sigmoid};

}  // namespace

TEST(steps_match_the_scalar_loop) {
  set_team_kind(TeamKind::kStdThread);
  for (const CellKind kind : kKinds)
    for (int64_t B : {1, 2, 7})
      for (int64_t H : {1, 17, 70}) {
        check_everywhere({kind, 1, B, 5, H, H, 1, 2}, true, on_all_threads, 3);
        if (kind == CellKind::lstm && H > 1)
          check_everywhere({kind, 1, B, 5, H, H / 2, 1, 2}, true, on_all_threads, 3);
      }
}

TEST(chunks_of_a_stack_match_the_scalar_loop) {
  set_team_kind(TeamKind::kStdThread);
  for (const CellKind kind : kKinds)
    for (int64_t T : {4, 9}) {
      check_everywhere({kind, T, 2, 5, 17, 17, 1, 3}, false, in_chunks, 3);
      if (kind == CellKind::lstm) check_everywhere({kind, T, 2, 5, 17, 9, 1, 3}, false, in_chunks, 2);
    }
}

TEST(a_wavefront_matches_the_scalar_loop) {
  set_team_kind(TeamKind::kStdThread);
  for (const CellKind kind : kKinds)
    for (int layers : {2, 3}) {
      check_everywhere({kind, 10, 2, 5, 17, 17, 1, layers}, false, as_wavefront, 3);
      if (kind == CellKind::lstm) check_everywhere({kind, 10, 2, 5, 17, 9, 1, layers}, false, as_wavefront, 2);
    }
}

TEST(bidirectional_stacks_match_the_scalar_loop) {
  set_team_kind(TeamKind::kStdThread);
  for (const CellKind kind : kKinds)
    for (bool prepacked : {false, true})
      check_everywhere({kind, 5, 3, 5, 17, 17, 2, 2}, prepacked, on_all_threads, 2);
}
