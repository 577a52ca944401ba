// SPDX-License-Identifier: Apache-2.0
#include "cpu/plan_stack.h"

#include <algorithm>

namespace rnnfast {
namespace {

// Multiply-adds of a step (of all layers) from which a second thread pays. Waking it costs about 2 us while the
// pool still spins, but many times that where other processes use the cores, so the gain must be worth it: a step
// of 128 units (LSTM, 131,000) took 7.5 us on two threads, 10.7 on one, and 150 and 31 on a crowded machine.
constexpr int64_t kStepSerialWork = 200'000;

// Rows of a chunk: what stands between the layers is some megabytes at most, and a chunk is long against the
// change from layer to layer.
constexpr int64_t kChunkRows = 1024, kMinChunkSteps = 16;

// A sequence of a few chunks may as well run whole.
constexpr int64_t kWholeChunks = 4;

// Of a wavefront: the first and last waves leave threads idle, so there are many, of at least this many steps.
constexpr int64_t kWaves = 16, kMinWaveSteps = 8;

// A wavefront may even look this much slower: the estimate knows nothing of other processes, and where they use the
// cores, meeting at every step costs many times the step (measured: 13 times at H = 128), meeting once a wave
// little.
constexpr double kTolerated = 1.1;

// Rough costs of a core, in ns: reading a byte from its own cache, from beyond it; a multiply-add; a barrier.
constexpr double kNearByte = 1 / 64.0, kFarByte = 1 / 32.0, kMultiplyAdd = 1 / 40.0;
double barrier_cost(int threads) { return threads == 1 ? 0 : 300 + 30.0 * threads; }

// The recurrent weights of a layer, in elements.
int64_t recurrent_weights(const LayerShape& s) { return s.gates * s.H * s.P + (s.projection ? s.P * s.H : 0); }

bool near(const Machine& m, int64_t bytes) { return bytes <= m.l2_bytes * 3 / 4; }

// A step of a layer's recurrence, by units on so many threads.
double step_cost(const LayerShape& s, const Machine& m, int threads) {
  const int64_t weights = recurrent_weights(s) / threads;
  const int64_t bytes = weights * s.element_bytes;
  const double read = double(bytes) * (near(m, bytes) ? kNearByte : kFarByte);
  const double work = double(weights * s.B) * kMultiplyAdd * s.element_bytes / 4;
  return std::max(read, work) + barrier_cost(threads) * (s.projection ? 2 : 1);
}

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

LayerShape with_steps(LayerShape s, int64_t T, bool prepacked) {
  s.T = T;
  s.prepacked = prepacked;
  return s;
}

StackPlan plan_step(const LayerShape& s, int layers, const Machine& m) {
  StackPlan plan;
  plan.step = true;
  const LayerShape above = stack_layer(s, layers > 1 ? 1 : 0);
  // The region is entered once for the whole stack.
  plan.threads = stack_step_work(s, layers) < kStepSerialWork ? 1 : std::max(1, m.threads);
  Machine machine = m;
  machine.threads = plan.threads;
  plan.first = plan_forward(s, machine);
  plan.above = plan_forward(above, machine);
  plan.first.threads = plan.above.threads = plan.threads;
  plan.first.split = plan.above.split = Split::kUnits;
  return plan;
}

}  // namespace

LayerShape stack_layer(const LayerShape& first, int index) {
  LayerShape s = first;
  if (index > 0) s.I = first.directions * first.P;
  return s;
}

int64_t stack_step_work(const LayerShape& s, int layers) {
  return s.B * s.directions * s.gates * s.H * (s.I + s.P + (layers - 1) * (stack_layer(s, 1).I + s.P));
}

StackPlan plan_stack(const LayerShape& s, int layers, const Machine& m) {
  const bool dense = !s.packed_sequence && s.directions == 1;
  if (s.T == 1 && dense && s.prepacked) return plan_step(s, layers, m);
  StackPlan plan;
  plan.chunk_steps = s.T;
  const int64_t batch = std::max<int64_t>(1, s.B);
  if (dense && layers > 1) {
    const int64_t in_stage = ceil_div(layers, std::min(layers, std::max(1, m.threads)));
    const int stages = int(ceil_div(layers, in_stage));  // 4 layers on 3 threads need but 2
    const bool fits = near(m, recurrent_weights(s) * s.element_bytes);
    const int64_t wave = std::clamp<int64_t>(s.T / kWaves, kMinWaveSteps, kMinWaveSteps + kChunkRows / batch);
    const int64_t waves = ceil_div(s.T, wave);
    const LayerPlan alone = plan_forward(s, m);
    if (stages > 1 && fits && waves >= 4 && alone.threads > 1 && alone.split == Split::kUnits) {
      const double together = layers * step_cost(s, m, m.threads);
      const double waiting = double(waves + stages - 1) / double(waves);
      const double apart = double(in_stage) * step_cost(s, m, 1) * waiting;
      if (apart < kTolerated * together) plan.stages = stages, plan.chunk_steps = wave;
    }
    if (plan.stages == 1) {
      const int64_t chunk = std::max(kMinChunkSteps, kChunkRows / batch);
      if (s.T > kWholeChunks * chunk) plan.chunk_steps = chunk;
    }
  }
  plan.pack = !s.prepacked && plan.chunk_steps < s.T;
  const bool prepacked = s.prepacked || plan.pack;
  Machine machine = m;
  if (plan.stages > 1) machine.threads = 1;
  plan.first = plan_forward(with_steps(s, plan.chunk_steps, prepacked), machine);
  plan.above = plan_forward(with_steps(stack_layer(s, layers > 1 ? 1 : 0), plan.chunk_steps, prepacked), machine);
  plan.threads = plan.stages > 1 ? plan.stages : std::max(plan.first.threads, plan.above.threads);
  return plan;
}

}  // namespace rnnfast
