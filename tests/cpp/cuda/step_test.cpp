// SPDX-License-Identifier: Apache-2.0
// The step path on the emulator, every cell, type, direction and option, against the plain loop.
#include "layer_case.h"

using namespace rnnfast;
using namespace rnnfast::emulated;

namespace {

const CudaPlan kStepPlan;

template <class S>
void check_drawn(unsigned first, unsigned count) {
  for (unsigned number = first; number < first + count; ++number) {
    const DrawnCase drawn(number, 70, true, true);
    emulator::set_seed(number);
    LayerCase<S>(drawn.problem(), drawn.ask).check(kStepPlan, kStepPlan);
  }
}

// cell, sizes, limits; everything given and asked for.
Problem problem_of(CellKind kind, int64_t T, int64_t B, int64_t I, int64_t H, int64_t P, int directions,
                   bool packed, Bptt bptt = {}) {
  Problem p(kind, T, B, I, H, P, directions, packed, true);
  p.bptt = bptt;
  return p;
}

bool mutation_is_caught(const char* name, const Problem& p, const char* words) {
  emulator::set_mutation(name);
  const std::string difference = LayerCase<float>(p, Ask()).difference(kStepPlan, kStepPlan);
  const bool met = emulator::mutation_hits() > 0;
  emulator::set_mutation("");
  if (!met) return false;
  return difference.find(words) != std::string::npos;
}

}  // namespace

TEST(step_float) { check_drawn<float>(1000, 200); }
TEST(step_double) { check_drawn<double>(2000, 200); }
TEST(step_half) { check_drawn<Half>(3000, 200); }
TEST(step_bfloat16) { check_drawn<BFloat16>(4000, 200); }

// More units, columns of x and of h than a block takes.
TEST(step_beyond_a_block) {
  const Bptt norm{Bptt::kNorm, 0.3, 0};
  Ask ask;
  ask.x = Ask::kBatchFirst;
  for (CellKind kind : {CellKind::lstm, CellKind::gru, CellKind::rnn_tanh}) {
    LayerCase<float>(problem_of(kind, 2, 3, 300, 261, 261, 1, true, norm), ask).check(kStepPlan, kStepPlan);
    LayerCase<Half>(problem_of(kind, 2, 3, 300, 130, 130, 2, false), ask).check(kStepPlan, kStepPlan);
  }
  LayerCase<double>(problem_of(CellKind::lstm, 2, 2, 5, 290, 140, 2, false, norm), ask).check(kStepPlan, kStepPlan);
}

// More steps than one launch uploads, more rows than one block sums.
TEST(step_long_packed) {
  for (CellKind kind : {CellKind::lstm, CellKind::gru, CellKind::rnn_sigmoid})
    LayerCase<double>(problem_of(kind, 700, 3, 2, 3, 3, 2, true, {Bptt::kNone, 0, 7}), Ask())
        .check(kStepPlan, kStepPlan);
}

// More rows than are projected at once.
TEST(step_chunks) {
  Ask inference;
  inference.training = false;
  LayerCase<float>(problem_of(CellKind::gru, 5, 6000, 1, 2, 2, 2, true), inference).check(kStepPlan, kStepPlan);
  LayerCase<float>(problem_of(CellKind::rnn_tanh, 3, 6000, 1, 2, 2, 2, false), Ask()).check(kStepPlan, kStepPlan);
  LayerCase<float>(problem_of(CellKind::lstm, 2, 17000, 1, 2, 1, 1, true), inference).check(kStepPlan, kStepPlan);
}

// Error signals whose squares leave the range of the type: their norms are right all the same.
TEST(step_norm_range) {
  for (double scale : {1e-30, 1e-8, 1e8, 1e30}) {
    Problem p = problem_of(CellKind::lstm, 3, 2, 3, 40, 40, 1, false, {Bptt::kNorm, 0.5, 0});
    for (double& e : p.grad_h) e *= scale;
    LayerCase<float>(p, Ask()).check(kStepPlan, kStepPlan);
  }
  Ask ask;
  ask.grad_y = ask.grad_c_n = false;
  ask.grad_h_n_scale = 1e180;  // scaled down to the same signal
  Problem p = problem_of(CellKind::gru, 3, 2, 3, 40, 40, 1, false, {Bptt::kNorm, 0.5, 0});
  for (double& e : p.grad_h) e *= 1e20;
  LayerCase<double>(p, ask).check(kStepPlan, kStepPlan);
}

TEST(step_same_bits_in_any_order_of_threads) {
  const Problem p = problem_of(CellKind::lstm, 4, 5, 7, 45, 20, 2, true, {Bptt::kNorm, 0.5, 3});
  emulator::set_seed(1);
  LayerCase<BFloat16> run(p, Ask());
  run.check(kStepPlan, kStepPlan);
  const auto bits = run.bits();
  emulator::set_seed(2);
  run.check(kStepPlan, kStepPlan);
  CHECK(run.bits() == bits, "a run with other thread order gave other bits");
}

// Nothing but the pointwise kernel is launched in a step, forward and backward (products are the library's).
TEST(step_launches) {
  for (CellKind kind : {CellKind::lstm, CellKind::gru, CellKind::rnn_relu}) {
    uint64_t launches[2];
    for (int64_t T : {10, 11}) {
      LayerCase<float> run(problem_of(kind, T, 3, 4, 9, 9, 1, false), Ask());
      const uint64_t before = emulator::statistics().launches;
      run.check(kStepPlan, kStepPlan);
      launches[T - 10] = emulator::statistics().launches - before;
    }
    CHECK(launches[1] - launches[0] == 2, "%s: a further step launches %d kernels", cell_info(kind).name,
          static_cast<int>(launches[1] - launches[0]));
  }
}

TEST(layer_without_samples) {
  float w_ih[4 * 3 * 2], w_hh[4 * 3 * 3], b[4 * 3];
  for (float* v : {w_ih, w_hh, b}) v[0] = 7;
  CudaBackward<float> args;
  args.in.sequence.T = 2;
  args.in.I = 2, args.in.H = args.in.P = 3;
  args.grad_w_ih[0] = w_ih, args.grad_w_hh[0] = w_hh, args.grad_b_hh[0] = b;
  CHECK(layer_backward(CellKind::lstm, args, kStepPlan, nullptr, host_gemm(), Stream{}), "failed");
  CHECK(w_ih[0] == 0 && w_hh[0] == 0 && b[0] == 0 && b[11] == 0, "gradients of no samples are zero");
  CudaForward<float> forward;
  forward.in = args.in;
  CHECK(layer_forward(CellKind::lstm, forward, kStepPlan, nullptr, host_gemm(), Stream{}), "failed");
}

TEST(layer_errors) {
  CudaBackward<float> good;
  good.in.sequence.T = 2;
  good.in.I = 2, good.in.H = good.in.P = 3;
  const auto expect = [&](const char* words, auto change) {
    CudaBackward<float> args = good;
    CudaPlan plan;
    CellKind kind = CellKind::gru;
    change(args, plan, kind);
    const Status status = layer_backward(kind, args, plan, nullptr, host_gemm(), Stream{});
    CHECK(!status && std::string(status.text).find(words) != std::string::npos, "expected %s; got %s", words,
          status ? "success" : status.text);
  };
  using Args = CudaBackward<float>;
  expect("at most 2^30", [](Args& a, CudaPlan&, CellKind&) { a.in.sequence.B = int64_t{1} << 31; });
  expect("pre-activations", [](Args& a, CudaPlan&, CellKind&) { a.in.H = a.in.P = int64_t{1} << 29; });
  expect("at least 1", [](Args& a, CudaPlan&, CellKind&) { a.in.sequence.T = 0; });
  expect("P: expected H", [](Args& a, CudaPlan&, CellKind&) { a.in.P = 2; });
  expect("a cell with c", [](Args& a, CudaPlan&, CellKind&) { a.in.P = 2, a.in.projection = true; });
  expect("needs the step path", [](Args& a, CudaPlan& p, CellKind& k) {
    k = CellKind::lstm, a.in.projection = true, p.path = CudaPath::kPersistent;
  });
  expect("need the step path", [](Args& a, CudaPlan& p, CellKind&) {
    a.bptt.clip = Bptt::kNorm, a.bptt.limit = 1, p.path = CudaPath::kPersistent;
  });
  expect("positive", [](Args& a, CudaPlan&, CellKind&) { a.bptt.clip = Bptt::kValue; });
  expect("behind", [](Args& a, CudaPlan&, CellKind&) { a.bptt.behind = -1; });
  expect("one direction", [](Args& a, CudaPlan&, CellKind&) { a.in.reversed = true, a.in.directions = 2; });
  expect("lengths", [](Args& a, CudaPlan&, CellKind&) {
    static const int64_t kSizes[] = {0, 0}, kOffsets[] = {0, 0, 0};
    a.in.sequence.batch_sizes = kSizes, a.in.sequence.offsets = kOffsets, a.bptt.steps = 1;
  });
  expect("steps", [](Args& a, CudaPlan&, CellKind&) { a.bptt.steps = -1; });
}

TEST(step_mutations_are_caught) {
  for (CellKind kind : {CellKind::lstm, CellKind::gru, CellKind::rnn_tanh})
    CHECK(mutation_is_caught("step forward: tail mask", problem_of(kind, 2, 2, 3, 33, 33, 1, false), "y["),
          "a tail mask");
  for (CellKind kind : {CellKind::lstm, CellKind::gru})
    CHECK(mutation_is_caught("step backward: row before", problem_of(kind, 2, 2, 3, 33, 33, 1, false), "grad_"),
          "an index");
  const Problem norm = problem_of(CellKind::lstm, 2, 2, 3, 33, 33, 1, false, {Bptt::kNorm, 0.1, 0});
  CHECK(mutation_is_caught("reduce: barrier", norm, "kernel of StepBackward<float>"),
        "a barrier, by the race check");
}
