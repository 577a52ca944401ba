// SPDX-License-Identifier: Apache-2.0
// Every cell on every target against a plain loop over the scalar cell. (The evidence on mathematics is the Python
// tests': NumPy, finite differences, torch.nn.)
#include <cmath>
#include <cstring>
#include <stdexcept>

#include "check.h"
#include "cpu/kernels.h"
#include "problem.h"

using namespace rnnfast;

namespace {

template <class Job>
void call(const Job& job, void (*kernel)(const Job&, int, int), int threads) {
  struct Body {
    const Job* job;
    void (*kernel)(const Job&, int, int);
  } body{&job, kernel};
  run_team(
      threads,
      [](void* self, int index, int count) {
        const Body* b = static_cast<Body*>(self);
        b->kernel(*b->job, index, count);
      },
      &body);
}

struct Variant {
  const Kernels* target;
  int threads;
  Split split;
  bool training;
  InputWeights input;
  bool prepacked = false;
  bool record = false;
};

template <class T>
void run_kernels(const Problem& p, const Variant& v, Buffers<T>& b) {
  LayerShape shape;
  shape.T = p.T, shape.B = p.B, shape.I = p.I, shape.H = p.H, shape.P = p.P;
  shape.gates = p.cell.gates, shape.directions = p.D, shape.element_bytes = int(sizeof(T));
  shape.packed_sequence = p.packed, shape.projection = p.projection(), shape.training = v.training;
  shape.prepacked = v.prepacked;
  const Machine machine{v.threads, 64 << 10};
  const int lanes = v.target->vector_bytes / int(sizeof(T));
  const CellKernels<T>& kernels = v.target->of(p.kind, T{});
  LayerPlan plan = plan_forward(shape, machine);
  plan.threads = v.threads;
  // A few rows on torch's own weights are never shared out by rows.
  plan.split = plan.weights == Weights::kDirect ? Split::kUnits : v.split;
  plan.block_k = 7;  // small blocks, so that small problems have several
  plan.chunk_steps = std::min<int64_t>(2, p.T);
  plan.input = v.input;
  const ForwardSpace space = forward_space(p.cell, shape, plan, lanes, v.training);
  std::vector<T> workspace(static_cast<size_t>(space.size * p.D)), packed;
  LayerForward<T> args;
  args.in = b.in;
  args.y = b.y.data(), args.h_n = b.h_n.data(), args.c_n = b.c_n.data();
  args.training = v.training;
  if (v.training) args.saved = b.saved.data(), args.cells = b.cells.data();
  if (v.prepacked) {
    packed.resize(static_cast<size_t>(space.packed.size * p.D));
    const PackJob<T> job{&b.in, &space.packed, packed.data()};
    call(job, kernels.pack, v.threads);
    args.packed = packed.data();
  }
  Barrier all, group[2];
  const ForwardJob<T> job{&args, &plan, &space, workspace.data(), &all, group};
  call(job, kernels.forward, v.threads);
  if (!v.training) return;

  plan = plan_backward(shape, machine);
  plan.threads = v.threads;
  plan.split = v.split;
  plan.block_k = 7;
  plan.chunk_steps = std::min<int64_t>(2, p.T);
  const BackwardSpace back_space = backward_space(p.cell, shape, plan, lanes, p.rows(), true, p.bptt, v.record);
  std::vector<T> back_workspace(static_cast<size_t>(back_space.size));
  LayerBackward<T> back;
  back.in = b.in;
  back.bptt = p.bptt;
  if (v.record) back.record = b.record.data();
  back.y = b.y.data(), back.saved = b.saved.data(), back.cells = b.cells.data();
  back.grad_y = b.grad_y.data(), back.grad_h_n = b.grad_h.data();
  if (p.cell.has_cell) back.grad_c_n = b.grad_c.data(), back.grad_c0 = b.dc0.data();
  back.grad_x = b.dx.data(), back.grad_h0 = b.dh0.data();
  for (int d = 0; d < p.D; ++d) {
    back.grad_w_ih[d] = b.dw[d][0].data(), back.grad_w_hh[d] = b.dw[d][1].data();
    back.grad_b_ih[d] = b.dw[d][2].data(), back.grad_b_hh[d] = b.dw[d][3].data();
    if (p.projection()) back.grad_w_hr[d] = b.dw[d][4].data();
  }
  const BackwardJob<T> back_job{&back, &plan, &back_space, back_workspace.data(), &all, group};
  call(back_job, kernels.backward, v.threads);
}

template <class T>
void compare(const char* name, const std::vector<T>& got, const Doubles& want, const Variant& v, const Problem& p) {
  double scale = 1;
  for (double e : want) scale = std::max(scale, std::abs(e));
  const double bound = (sizeof(T) == 4 ? 2e-5 : 1e-12) * scale;
  for (size_t i = 0; i < want.size(); ++i) {
    if (std::abs(double(got[i]) - want[i]) <= bound) continue;
    CHECK(false,
          "%s of %s on %s, %d threads, by %s, T=%lld B=%lld I=%lld H=%lld P=%lld D=%d packed=%d: [%zu] got %g, "
          "expected %g",
          name, p.cell.name, v.target->name, v.threads, to_string(v.split), (long long)p.T, (long long)p.B,
          (long long)p.I, (long long)p.H, (long long)p.P, p.D, p.packed, i, double(got[i]), want[i]);
    return;
  }
}

template <class T>
void check_training(const Problem& p, const Variant& training, const Buffers<double>& want) {
  Buffers<T> got(p);
  run_kernels<T>(p, training, got);
  const auto same = [&](const char* name, const std::vector<T>& g, const Doubles& w) {
    compare(name, g, w, training, p);
  };
  same("y", got.y, want.y), same("h_n", got.h_n, want.h_n), same("c_n", got.c_n, want.c_n);
  same("saved", got.saved, want.saved), same("cells", got.cells, want.cells);
  same("dx", got.dx, want.dx), same("dh0", got.dh0, want.dh0), same("dc0", got.dc0, want.dc0);
  static const char* const kNames[] = {"dw_ih", "dw_hh", "db_ih", "db_hh", "dw_hr"};
  for (int d = 0; d < p.D; ++d)
    for (int k = 0; k < 5; ++k) same(kNames[k], got.dw[d][k], want.dw[d][k]);
  if (training.record) same("record", got.record, want.record);
}

template <class T>
void check_problem(const Problem& p, const Buffers<double>& want) {
  for (const Kernels* target : kernels_available())
    for (int threads : {1, 2, 3})
      for (Split split : {Split::kUnits, Split::kRows}) {
        const InputWeights input = threads == 2 ? InputWeights::kPacked : InputWeights::kPanels;
        const Variant training{target, threads, split, true, input};
        check_training<T>(p, training, want);
        for (bool prepacked : {false, true}) {
          const Variant inference{target,   threads, split, false, prepacked ? InputWeights::kPacked : input,
                                  prepacked};
          Buffers<T> infer(p);
          run_kernels<T>(p, inference, infer);
          compare("inference y", infer.y, want.y, training, p);
          compare("inference c_n", infer.c_n, want.c_n, training, p);
        }
      }
}

}  // namespace

TEST(layers_match_the_scalar_loop) {
  set_team_kind(TeamKind::kStdThread);
  const int64_t shapes[][4] = {{1, 1, 1, 1},    {2, 3, 19, 21}, {2, 7, 5, 17},
                               {5, 13, 16, 31}, {6, 3, 33, 16}, {3, 8, 9, 70}};
  for (const CellKind kind :
       {CellKind::lstm, CellKind::gru, CellKind::rnn_tanh, CellKind::rnn_relu, CellKind::rnn_sigmoid})
    for (const auto& s : shapes)
      for (int D : {1, 2})
        for (bool packed : {false, true}) {
          std::vector<int64_t> outputs{s[3]};
          if (kind == CellKind::lstm && s[3] > 1) outputs.push_back(s[3] / 2);
          for (int64_t P : outputs) {
            const Problem p(kind, s[0], s[1], s[2], s[3], P, D, packed, s[1] % 2 == 1);
            Buffers<double> want(p);
            run_reference(p, want);
            check_problem<double>(p, want);
            check_problem<float>(p, want);
          }
        }
}

// Limits small enough to act on most steps, cuts, and records, in the combinations that take ways of their own.
TEST(controlled_signals_match_the_scalar_loop) {
  set_team_kind(TeamKind::kStdThread);
  const Bptt controls[] = {{Bptt::kNone, 0, 0},     {Bptt::kNone, 0, 2},   {Bptt::kValue, 0.05, 0},
                           {Bptt::kValue, 0.05, 3}, {Bptt::kNorm, 0.3, 0}, {Bptt::kNorm, 0.3, 1}};
  for (const CellKind kind :
       {CellKind::lstm, CellKind::gru, CellKind::rnn_tanh, CellKind::rnn_relu, CellKind::rnn_sigmoid})
    for (const Bptt& bptt : controls)
      for (bool packed : {false, true}) {
        std::vector<int64_t> outputs{37};
        if (kind == CellKind::lstm) outputs.push_back(19);
        for (int64_t P : outputs) {
          Problem p(kind, 7, 5, 3, 37, P, 2, packed, true);
          p.bptt = bptt;
          Buffers<double> want(p);
          run_reference(p, want);
          for (const Kernels* target : kernels_available())
            for (int threads : {1, 2, 3})
              for (Split split : {Split::kUnits, Split::kRows})
                for (bool record : {false, true}) {
                  const Variant v{target, threads, split, true, InputWeights::kPacked, false, record};
                  check_training<double>(p, v, want);
                  check_training<float>(p, v, want);
                }
        }
      }
}

namespace {

// The first run's results and those of later ones, in buffers of their own.
template <class T>
void check_repeats(const Problem& p, const Variant& v) {
  Buffers<T> first(p);
  run_kernels<T>(p, v, first);
  for (int repeat = 0; repeat < 3; ++repeat) {
    Buffers<T> again(p);
    run_kernels<T>(p, v, again);
    const auto same = [&](const char* name, const std::vector<T>& a, const std::vector<T>& b) {
      CHECK(a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0,
            "%s of %s on %s in %zu bytes, %d threads, by %s, packed=%d: other bits in run %d", name, p.cell.name,
            v.target->name, sizeof(T), v.threads, to_string(v.split), p.packed, repeat + 2);
    };
    same("y", first.y, again.y), same("h_n", first.h_n, again.h_n), same("c_n", first.c_n, again.c_n);
    same("saved", first.saved, again.saved), same("cells", first.cells, again.cells);
    same("dx", first.dx, again.dx), same("dh0", first.dh0, again.dh0), same("dc0", first.dc0, again.dc0);
    for (int d = 0; d < p.D; ++d)
      for (int k = 0; k < 5; ++k) same("a weight's gradient", first.dw[d][k], again.dw[d][k]);
  }
}

}  // namespace

TEST(repeated_runs_give_the_same_bits) {
  set_team_kind(TeamKind::kStdThread);
  for (const CellKind kind :
       {CellKind::lstm, CellKind::gru, CellKind::rnn_tanh, CellKind::rnn_relu, CellKind::rnn_sigmoid})
    for (bool packed : {false, true}) {
      const Problem p(kind, 4, 11, 19, 37, kind == CellKind::lstm && packed ? 18 : 37, 2, packed, true);
      for (const Kernels* target : kernels_available())
        for (int threads : {1, 2, 3})
          for (Split split : {Split::kUnits, Split::kRows}) {
            const Variant v{target, threads, split, true, InputWeights::kPacked};
            check_repeats<float>(p, v);
            check_repeats<double>(p, v);
          }
    }
}

TEST(targets_are_listed_best_first) {
  CHECK(!kernels_available().empty(), "no target runs here");
  CHECK(kernels_built().back()->name == std::string("generic"), "generic is the last resort");
  bool refused = false;
  try {
    use_isa("no such target");
  } catch (const std::invalid_argument&) {
    refused = true;
  }
  CHECK(refused, "an unknown target was accepted");
}
