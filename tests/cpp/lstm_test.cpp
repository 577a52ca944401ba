// SPDX-License-Identifier: Apache-2.0
// Every target's LSTM against a plain loop over the scalar cell, on buffers of exact size: AddressSanitizer sees
// any access beyond them. (The evidence on mathematics is the Python tests': NumPy, finite differences, torch.nn.)
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <random>
#include <stdexcept>
#include <vector>

#include "check.h"
#include "core/params.h"
#include "cpu/kernels.h"

#define RNNFAST_NAMESPACE rnnfast_scalar
#include "cells/lstm.h"

using namespace rnnfast;
using Cell = rnnfast_scalar::LstmCell;

namespace {

struct Problem {
  int64_t T, B, I, H;
  int D;
  bool packed, biases;
  std::vector<int64_t> sizes, offsets;
  std::vector<double> x, h0, c0, grad_y, grad_h, grad_c;
  std::vector<double> w[2][4];

  int64_t rows() const { return packed ? offsets.back() : T * B; }

  Problem(int64_t T_, int64_t B_, int64_t I_, int64_t H_, int D_, bool packed_, bool biases_)
      : T(T_), B(B_), I(I_), H(H_), D(D_), packed(packed_), biases(biases_) {
    std::mt19937 gen(static_cast<unsigned>(T * 1000003 + B * 10007 + I * 101 + H));
    std::uniform_real_distribution<double> uniform(-1, 1);
    const auto fill = [&](std::vector<double>& v, int64_t n) {
      v.resize(static_cast<size_t>(n));
      for (double& e : v) e = uniform(gen);
    };
    offsets.push_back(0);
    for (int64_t t = 0; t < T; ++t) {
      sizes.push_back(std::max<int64_t>(1, B - t * B / T));
      offsets.push_back(offsets.back() + sizes.back());
    }
    fill(x, rows() * I);
    fill(h0, D * B * H);
    fill(c0, D * B * H);
    fill(grad_y, rows() * D * H);
    fill(grad_h, D * B * H);
    fill(grad_c, D * B * H);
    for (int d = 0; d < D; ++d) {
      fill(w[d][0], 4 * H * I);
      fill(w[d][1], 4 * H * H);
      fill(w[d][2], 4 * H);
      fill(w[d][3], 4 * H);
    }
  }
};

template <class T>
struct Buffers {
  std::vector<T> x, h0, c0, grad_y, grad_h, grad_c, w[2][4];
  std::vector<T> y, h_n, c_n, gates, cells, dx, dh0, dc0, dw[2][3];
  LstmInputs<T> in;

  explicit Buffers(const Problem& p) {
    const auto copy = [](std::vector<T>& to, const std::vector<double>& from) {
      to.assign(from.begin(), from.end());
    };
    copy(x, p.x), copy(h0, p.h0), copy(c0, p.c0), copy(grad_y, p.grad_y), copy(grad_h, p.grad_h),
        copy(grad_c, p.grad_c);
    in.sequence = {p.T, p.B, p.packed ? p.sizes.data() : nullptr, p.packed ? p.offsets.data() : nullptr};
    in.I = p.I, in.H = p.H, in.directions = p.D;
    in.x = x.data(), in.x_step = p.packed ? 0 : p.B * p.I, in.x_row = p.I;
    in.h0 = h0.data(), in.c0 = c0.data();
    for (int d = 0; d < p.D; ++d) {
      for (int k = 0; k < 4; ++k) copy(w[d][k], p.w[d][k]);
      in.weights[d] = {w[d][0].data(), w[d][1].data(), p.biases ? w[d][2].data() : nullptr,
                       p.biases ? w[d][3].data() : nullptr};
      dw[d][0].resize(w[d][0].size()), dw[d][1].resize(w[d][1].size()), dw[d][2].resize(w[d][2].size());
    }
    const size_t N = static_cast<size_t>(p.rows()), D = static_cast<size_t>(p.D), H = static_cast<size_t>(p.H);
    y.resize(N * D * H), gates.resize(D * N * 4 * H), cells.resize(D * N * H);
    h_n.resize(h0.size()), c_n.resize(h0.size()), dh0.resize(h0.size()), dc0.resize(h0.size()), dx.resize(x.size());
  }
};

template <class Job>
struct Body {
  const Job* job;
  void (*kernel)(const Job&, int, int);
  static void run(void* self, int index, int count) {
    const Body* body = static_cast<Body*>(self);
    body->kernel(*body->job, index, count);
  }
};

template <class Job>
void call(const Job& job, void (*kernel)(const Job&, int, int), int threads) {
  Body<Job> body{&job, kernel};
  run_team(threads, &Body<Job>::run, &body);
}

auto forward_of(const Kernels& k, float) { return k.lstm_forward_f32; }
auto forward_of(const Kernels& k, double) { return k.lstm_forward_f64; }
auto backward_of(const Kernels& k, float) { return k.lstm_backward_f32; }
auto backward_of(const Kernels& k, double) { return k.lstm_backward_f64; }

template <class T>
void run_kernels(const Problem& p, const Kernels& target, int threads, bool training, Buffers<T>& b, Split split) {
  const LayerShape shape{p.T, p.B, p.I, p.H, p.D, int(sizeof(T)), p.packed};
  const Machine machine{threads, target.vector_bytes, 32 << 10, 64 << 10};
  const int lanes = target.vector_bytes / int(sizeof(T));
  LayerPlan plan = plan_forward(shape, machine);
  plan.threads = threads;
  plan.split = split;
  plan.block_k = 7;  // small blocks, so that small problems have several
  plan.chunk_steps = std::min<int64_t>(2, p.T);
  const LstmForwardSpace space = forward_space(shape, plan, lanes, training);
  std::vector<T> workspace(static_cast<size_t>(space.size * p.D));
  LstmForward<T> args;
  args.in = b.in;
  args.y = b.y.data(), args.h_n = b.h_n.data(), args.c_n = b.c_n.data();
  if (training) args.gates = b.gates.data(), args.cells = b.cells.data();
  Barrier all, group[2];
  const LstmForwardJob<T> job{&args, &plan, &space, workspace.data(), &all, group};
  call(job, forward_of(target, T{}), threads);
  if (!training) return;

  plan = plan_backward(shape, machine);
  plan.threads = threads;
  plan.split = split;
  plan.block_k = 7;
  const LstmBackwardSpace back_space = backward_space(shape, plan, lanes, p.rows());
  std::vector<T> back_workspace(static_cast<size_t>(back_space.size));
  LstmBackward<T> back;
  back.in = b.in;
  back.y = b.y.data(), back.gates = b.gates.data(), back.cells = b.cells.data();
  back.grad_y = b.grad_y.data(), back.grad_h_n = b.grad_h.data(), back.grad_c_n = b.grad_c.data();
  back.grad_x = b.dx.data(), back.grad_h0 = b.dh0.data(), back.grad_c0 = b.dc0.data();
  for (int d = 0; d < p.D; ++d) {
    back.grad_w_ih[d] = b.dw[d][0].data();
    back.grad_w_hh[d] = b.dw[d][1].data();
    back.grad_b[d] = b.dw[d][2].data();
  }
  const LstmBackwardJob<T> back_job{&back, &plan, &back_space, back_workspace.data(), &all, group};
  call(back_job, backward_of(target, T{}), threads);
}

// The same by a loop over scalars.
void run_reference(const Problem& p, Buffers<double>& b) {
  const Sequence& s = b.in.sequence;
  const int64_t H = p.H, N = p.rows();
  std::fill(b.dx.begin(), b.dx.end(), 0.0);
  for (int d = 0; d < p.D; ++d) {
    const bool reverse = d == 1;
    double* gates = b.gates.data() + d * N * 4 * H;
    double* cells = b.cells.data() + d * N * H;
    std::vector<double> h_prev(static_cast<size_t>(N * H)), c_prev(static_cast<size_t>(N * H));
    double *h = b.h_n.data() + d * p.B * H, *c = b.c_n.data() + d * p.B * H;
    std::copy_n(p.h0.data() + d * p.B * H, p.B * H, h);
    std::copy_n(p.c0.data() + d * p.B * H, p.B * H, c);
    for (int64_t q = 0; q < p.T; ++q) {
      const int64_t t = Sequence::time_of(q, p.T, reverse);
      for (int64_t i = 0; i < s.active(t); ++i) {
        const int64_t row = s.first_row(t) + i;
        std::copy_n(h + i * H, H, &h_prev[size_t(row * H)]);
        std::copy_n(c + i * H, H, &c_prev[size_t(row * H)]);
        for (int64_t u = 0; u < H; ++u) {
          double a[4];
          for (int64_t g = 0; g < 4; ++g) {
            const int64_t j = g * H + u;
            a[g] = p.biases ? p.w[d][2][size_t(j)] + p.w[d][3][size_t(j)] : 0.0;
            for (int64_t k = 0; k < p.I; ++k) a[g] += p.w[d][0][size_t(j * p.I + k)] * p.x[size_t(row * p.I + k)];
            for (int64_t k = 0; k < H; ++k) a[g] += p.w[d][1][size_t(j * H + k)] * h_prev[size_t(row * H + k)];
          }
          const auto gate = Cell::activate(a[0], a[1], a[2], a[3]);
          const auto state = Cell::forward(gate, c_prev[size_t(row * H + u)]);
          const double values[4] = {gate.i, gate.f, gate.g, gate.o};
          for (int64_t g = 0; g < 4; ++g) gates[row * 4 * H + g * H + u] = values[g];
          cells[row * H + u] = c[i * H + u] = state.c;
          h[i * H + u] = b.y[size_t(row * p.D * H + d * H + u)] = state.h;
        }
      }
    }
    double *dh = b.dh0.data() + d * p.B * H, *dc = b.dc0.data() + d * p.B * H;
    std::copy_n(p.grad_h.data() + d * p.B * H, p.B * H, dh);
    std::copy_n(p.grad_c.data() + d * p.B * H, p.B * H, dc);
    for (int64_t q = p.T - 1; q >= 0; --q) {
      const int64_t t = Sequence::time_of(q, p.T, reverse);
      for (int64_t i = 0; i < s.active(t); ++i) {
        const int64_t row = s.first_row(t) + i;
        std::vector<double> delta(size_t(4 * H));
        for (int64_t u = 0; u < H; ++u) {
          const double* g = gates + row * 4 * H + u;
          const Cell::Gates<double> gate{g[0], g[H], g[2 * H], g[3 * H]};
          const double tanh_c = std::tanh(cells[row * H + u]);
          const double dh_t = dh[i * H + u] + p.grad_y[size_t(row * p.D * H + d * H + u)];
          const double dc_t = dc[i * H + u] + Cell::cell_gradient(dh_t, gate, tanh_c);
          const auto back = Cell::backward(dh_t, dc_t, gate, c_prev[size_t(row * H + u)], tanh_c);
          for (int64_t k = 0; k < 4; ++k) delta[size_t(k * H + u)] = back.delta[k];
          dc[i * H + u] = back.dc_prev;
          dh[i * H + u] = 0;
        }
        for (int64_t j = 0; j < 4 * H; ++j) {
          const double e = delta[size_t(j)];
          b.dw[d][2][size_t(j)] += e;
          for (int64_t k = 0; k < p.I; ++k) {
            b.dx[size_t(row * p.I + k)] += e * p.w[d][0][size_t(j * p.I + k)];
            b.dw[d][0][size_t(j * p.I + k)] += e * p.x[size_t(row * p.I + k)];
          }
          for (int64_t k = 0; k < H; ++k) {
            dh[i * H + k] += e * p.w[d][1][size_t(j * H + k)];
            b.dw[d][1][size_t(j * H + k)] += e * h_prev[size_t(row * H + k)];
          }
        }
      }
    }
  }
}

template <class T>
void compare(const char* name, const std::vector<T>& got, const std::vector<double>& want, const char* isa,
             int threads, const Problem& p) {
  double scale = 1;
  for (double v : want) scale = std::max(scale, std::abs(v));
  const double bound = (sizeof(T) == 4 ? 2e-5 : 1e-12) * scale;
  for (size_t i = 0; i < want.size(); ++i) {
    if (std::abs(double(got[i]) - want[i]) <= bound) continue;
    CHECK(false, "%s on %s, %d threads, T=%lld B=%lld I=%lld H=%lld D=%d packed=%d: [%zu] got %g, expected %g",
          name, isa, threads, (long long)p.T, (long long)p.B, (long long)p.I, (long long)p.H, p.D, p.packed, i,
          double(got[i]), want[i]);
    return;
  }
}

template <class T>
void check_problem(const Problem& p, const Buffers<double>& want) {
  for (const Kernels* target : kernels_available())
    for (int threads : {1, 2, 3})
      for (Split split : {Split::kUnits, Split::kRows}) {
        Buffers<T> got(p);
        run_kernels<T>(p, *target, threads, true, got, split);
        const auto same = [&](const char* name, const std::vector<T>& g, const std::vector<double>& w) {
          compare(name, g, w, target->name, threads, p);
        };
        same("y", got.y, want.y), same("h_n", got.h_n, want.h_n), same("c_n", got.c_n, want.c_n);
        same("gates", got.gates, want.gates), same("cells", got.cells, want.cells);
        same("dx", got.dx, want.dx), same("dh0", got.dh0, want.dh0), same("dc0", got.dc0, want.dc0);
        for (int d = 0; d < p.D; ++d) {
          same("dw_ih", got.dw[d][0], want.dw[d][0]), same("dw_hh", got.dw[d][1], want.dw[d][1]);
          same("db", got.dw[d][2], want.dw[d][2]);
        }
        Buffers<T> inference(p);
        run_kernels<T>(p, *target, threads, false, inference, split);
        same("inference y", inference.y, want.y), same("inference c_n", inference.c_n, want.c_n);
      }
}

}  // namespace

TEST(lstm_matches_the_scalar_loop) {
  set_team_kind(TeamKind::kStdThread);
  const int64_t shapes[][4] = {{1, 1, 1, 1}, {2, 7, 5, 17}, {5, 13, 16, 31}, {6, 3, 33, 16}, {3, 8, 9, 70}};
  for (const auto& s : shapes)
    for (int D : {1, 2})
      for (bool packed : {false, true}) {
        const Problem p(s[0], s[1], s[2], s[3], D, packed, s[1] % 2 == 1);
        Buffers<double> want(p);
        run_reference(p, want);
        check_problem<double>(p, want);
        check_problem<float>(p, want);
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
