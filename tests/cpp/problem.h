// SPDX-License-Identifier: Apache-2.0
// A layer's problem for the core's tests: inputs in double, buffers of exact size in either type, so that
// AddressSanitizer sees any access beyond them; and the same layer as a plain loop over the scalar cell.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

#include "cells/list.h"
#include "core/params.h"

#define RNNFAST_NAMESPACE rnnfast_scalar_test
#include "cells/all.h"

using Doubles = std::vector<double>;

struct Problem {
  rnnfast::CellKind kind;
  rnnfast::CellInfo cell;
  int64_t T, B, I, H, P;
  int D;
  bool packed, biases;
  std::vector<int64_t> sizes, offsets, lengths;
  rnnfast::Bptt bptt;
  Doubles x, h0, c0, grad_y, grad_h, grad_c;
  Doubles w[2][5];  // w_ih, w_hh, b_ih, b_hh, w_hr

  bool projection() const { return P != H; }
  int64_t rows() const { return packed ? offsets.back() : T * B; }
  int64_t gates() const { return cell.gates * H; }

  Problem(rnnfast::CellKind kind_, int64_t T_, int64_t B_, int64_t I_, int64_t H_, int64_t P_, int D_, bool packed_,
          bool biases_)
      : kind(kind_),
        cell(rnnfast::cell_info(kind_)),
        T(T_),
        B(B_),
        I(I_),
        H(H_),
        P(P_),
        D(D_),
        packed(packed_),
        biases(biases_) {
    std::mt19937 gen(static_cast<unsigned>(T * 1000003 + B * 10007 + I * 101 + H));
    std::uniform_real_distribution<double> uniform(-1, 1);
    const auto fill = [&](Doubles& v, int64_t n) {
      v.resize(static_cast<size_t>(n));
      for (double& e : v) e = uniform(gen);
    };
    offsets.push_back(0);
    for (int64_t t = 0; t < T; ++t) {
      sizes.push_back(std::max<int64_t>(1, B - t * B / T));
      offsets.push_back(offsets.back() + sizes.back());
    }
    for (int64_t b = 0; b < B; ++b)
      lengths.push_back(std::count_if(sizes.begin(), sizes.end(), [&](int64_t size) { return size > b; }));
    fill(x, rows() * I);
    fill(h0, D * B * P);
    fill(c0, cell.has_cell ? D * B * H : 0);
    fill(grad_y, rows() * D * P);
    fill(grad_h, D * B * P);
    fill(grad_c, cell.has_cell ? D * B * H : 0);
    for (int d = 0; d < D; ++d) {
      fill(w[d][0], gates() * I);
      fill(w[d][1], gates() * P);
      fill(w[d][2], gates());
      fill(w[d][3], gates());
      fill(w[d][4], projection() ? P * H : 0);
      // A relu network of this size would overflow float.
      for (double& e : w[d][1]) e /= double(P);
    }
  }
};

template <class T>
struct Buffers {
  std::vector<T> x, h0, c0, grad_y, grad_h, grad_c, w[2][5];
  std::vector<T> y, h_n, c_n, saved, cells, dx, dh0, dc0, dw[2][5], record;
  rnnfast::LayerInputs<T> in;

  explicit Buffers(const Problem& p) {
    const auto copy = [](std::vector<T>& to, const Doubles& from) { to.assign(from.begin(), from.end()); };
    copy(x, p.x), copy(h0, p.h0), copy(c0, p.c0), copy(grad_y, p.grad_y), copy(grad_h, p.grad_h),
        copy(grad_c, p.grad_c);
    in.sequence = {p.T, p.B, p.packed ? p.sizes.data() : nullptr, p.packed ? p.offsets.data() : nullptr,
                   p.packed ? p.lengths.data() : nullptr};
    in.I = p.I, in.H = p.H, in.P = p.P, in.directions = p.D;
    in.variant = p.cell.variant, in.projection = p.projection();
    in.x = x.data(), in.x_step = p.packed ? 0 : p.B * p.I, in.x_row = p.I;
    in.h0 = h0.data(), in.c0 = p.cell.has_cell ? c0.data() : nullptr;
    for (int d = 0; d < p.D; ++d) {
      for (int k = 0; k < 5; ++k) copy(w[d][k], p.w[d][k]), dw[d][k].resize(w[d][k].size());
      in.weights[d] = {w[d][0].data(), w[d][1].data(), p.biases ? w[d][2].data() : nullptr,
                       p.biases ? w[d][3].data() : nullptr, p.projection() ? w[d][4].data() : nullptr};
    }
    const size_t N = static_cast<size_t>(p.rows()), D = static_cast<size_t>(p.D), H = static_cast<size_t>(p.H);
    y.resize(N * D * static_cast<size_t>(p.P));
    saved.resize(D * N * static_cast<size_t>(p.cell.saved) * H);
    cells.resize(p.cell.has_cell ? D * N * H : 0);
    record.resize(D * N * rnnfast::kRecorded);
    h_n.resize(h0.size()), dh0.resize(h0.size()), c_n.resize(c0.size()), dc0.resize(c0.size()), dx.resize(x.size());
  }
};

// What is done to a step's error signal, n values of one sample. Sets its norm before, adds to what was limited.
inline void limit(const rnnfast::Bptt& bptt, double* signal, int64_t n, double* norm, double* limited) {
  *norm = 0;
  for (int64_t j = 0; j < n; ++j) *norm += signal[j] * signal[j];
  *norm = std::sqrt(*norm);
  const bool scales = bptt.clip == rnnfast::Bptt::kNorm && *norm > bptt.limit;
  if (scales) ++*limited;
  for (int64_t j = 0; j < n; ++j) {
    if (scales) signal[j] *= bptt.limit / *norm;
    if (bptt.clip != rnnfast::Bptt::kValue) continue;
    if (std::abs(signal[j]) > bptt.limit) ++*limited;
    signal[j] = std::clamp(signal[j], -bptt.limit, bptt.limit);
  }
}

// Forward and backward of the layer by loops over scalars.
template <class Cell>
void run_reference(const Problem& p, Buffers<double>& b) {
  constexpr int G = Cell::kGates, S = Cell::kSaved, K = Cell::kDelta;
  const Cell cell(p.cell.variant);
  const rnnfast::Sequence& s = b.in.sequence;
  const int64_t H = p.H, P = p.P, N = p.rows();
  std::fill(b.dx.begin(), b.dx.end(), 0.0);
  for (int d = 0; d < p.D; ++d) {
    const double *w_ih = p.w[d][0].data(), *w_hh = p.w[d][1].data(), *w_hr = p.w[d][4].data();
    const auto bias = [&](int which, int64_t j) { return p.biases ? p.w[d][which][size_t(j)] : 0.0; };
    std::vector<typename Cell::template Seen<double>> seen(static_cast<size_t>(N * H));
    Doubles h_prev(size_t(N * P)), output(size_t(N * H));
    double* h = b.h_n.data() + d * p.B * P;
    Doubles c(size_t(p.B * H));
    std::copy_n(p.h0.data() + d * p.B * P, p.B * P, h);
    if (Cell::kHasCell) std::copy_n(p.c0.data() + d * p.B * H, p.B * H, c.data());
    for (int64_t q = 0; q < p.T; ++q) {
      const int64_t t = rnnfast::Sequence::time_of(q, p.T, d == 1);
      for (int64_t i = 0; i < s.active(t); ++i) {
        const int64_t row = s.first_row(t) + i;
        std::copy_n(h + i * P, P, &h_prev[size_t(row * P)]);
        for (int64_t u = 0; u < H; ++u) {
          double a[G], x[G];
          for (int64_t g = 0; g < G; ++g) {
            const int64_t j = g * H + u;
            x[g] = bias(2, j), a[g] = bias(3, j);
            for (int64_t k = 0; k < p.I; ++k) x[g] += w_ih[j * p.I + k] * p.x[size_t(row * p.I + k)];
            for (int64_t k = 0; k < P; ++k) a[g] += w_hh[j * P + k] * h_prev[size_t(row * P + k)];
            if (!Cell::kApart[g]) a[g] += x[g];
          }
          const double hp = P == H ? h_prev[size_t(row * P + u)] : 0, cp = c[size_t(i * H + u)];
          const auto out = cell.forward(a, x, hp, cp);
          auto& left = seen[size_t(row * H + u)];
          left.h = out.h, left.h_prev = hp, left.c = out.c, left.c_prev = cp;
          for (int k = 0; k < S; ++k)
            left.saved[k] = b.saved[size_t(((d * N + row) * S + k) * H + u)] = out.saved[k];
          c[size_t(i * H + u)] = out.c;
          output[size_t(row * H + u)] = out.h;
          if (Cell::kHasCell) b.cells[size_t((d * N + row) * H + u)] = out.c;
        }
        for (int64_t j = 0; j < P; ++j) {
          double sum = P == H ? output[size_t(row * H + j)] : 0;
          for (int64_t u = 0; P != H && u < H; ++u) sum += w_hr[j * H + u] * output[size_t(row * H + u)];
          h[i * P + j] = b.y[size_t((row * p.D + d) * P + j)] = sum;
        }
      }
    }
    if (Cell::kHasCell) std::copy_n(c.data(), p.B * H, b.c_n.data() + d * p.B * H);

    double* dh = b.dh0.data() + d * p.B * P;
    Doubles carry(size_t(p.B * H));
    std::copy_n(p.grad_h.data() + d * p.B * P, p.B * P, dh);
    if (Cell::kHasCell) std::copy_n(p.grad_c.data() + d * p.B * H, p.B * H, carry.data());
    for (int64_t q = p.T - 1; q >= 0; --q) {
      const int64_t t = rnnfast::Sequence::time_of(q, p.T, d == 1);
      for (int64_t i = 0; i < s.active(t); ++i) {
        const int64_t row = s.first_row(t) + i;
        Doubles total(static_cast<size_t>(P)), delta(size_t(K * H));
        for (int64_t j = 0; j < P; ++j) {
          total[size_t(j)] = dh[i * P + j] + p.grad_y[size_t((row * p.D + d) * P + j)];
          dh[i * P + j] = 0;
        }
        double* const record = &b.record[size_t((d * N + row) * rnnfast::kRecorded)];
        record[2] = 0;
        limit(p.bptt, total.data(), P, record, record + 2);
        Doubles grads(static_cast<size_t>(H)), dcs(static_cast<size_t>(H));
        for (int64_t u = 0; u < H; ++u) {
          double& grad = grads[size_t(u)];
          grad = P == H ? total[size_t(u)] : 0;
          for (int64_t j = 0; P != H && j < P; ++j) {
            grad += total[size_t(j)] * w_hr[j * H + u];
            b.dw[d][4][size_t(j * H + u)] += total[size_t(j)] * output[size_t(row * H + u)];
          }
          if constexpr (Cell::kHasCell)
            dcs[size_t(u)] = carry[size_t(i * H + u)] + cell.cell_gradient(grad, seen[size_t(row * H + u)]);
        }
        limit(p.bptt, dcs.data(), H, record + 1, record + 2);
        for (int64_t u = 0; u < H; ++u) {
          const auto back = cell.backward(grads[size_t(u)], dcs[size_t(u)], seen[size_t(row * H + u)]);
          for (int k = 0; k < K; ++k) delta[size_t(k * H + u)] = back.delta[k];
          if (Cell::kHasCell) carry[size_t(i * H + u)] = back.carry;
          if (Cell::kDirect) dh[i * P + u] += back.carry;
        }
        for (int64_t j = 0; j < G * H; ++j) {
          const double input = delta[size_t((j + (G - Cell::kFirstGate) * H) % (G * H))];
          const double recurrent = delta[size_t(j + Cell::kDeltaRecurrent * H)];
          b.dw[d][2][size_t(j)] += input;
          b.dw[d][3][size_t(j)] += recurrent;
          for (int64_t k = 0; k < p.I; ++k) {
            b.dx[size_t(row * p.I + k)] += input * w_ih[j * p.I + k];
            b.dw[d][0][size_t(j * p.I + k)] += input * p.x[size_t(row * p.I + k)];
          }
          for (int64_t k = 0; k < P; ++k) {
            dh[i * P + k] += recurrent * w_hh[j * P + k];
            b.dw[d][1][size_t(j * P + k)] += recurrent * h_prev[size_t(row * P + k)];
          }
        }
        const int64_t length = p.packed ? p.lengths[size_t(i)] : p.T, own = d == 1 ? length - 1 - t : t;
        if (p.bptt.steps == 0 || own < 1 || (length - own) % p.bptt.steps != 0) continue;
        std::fill_n(dh + i * P, P, 0.0);
        if (Cell::kHasCell) std::fill_n(&carry[size_t(i * H)], H, 0.0);
      }
    }
    if (Cell::kHasCell) std::copy_n(carry.data(), p.B * H, b.dc0.data() + d * p.B * H);
  }
}

inline void run_reference(const Problem& p, Buffers<double>& b) {
  switch (p.kind) {
#define RNNFAST_CASE(name, Cell, variant) \
  case rnnfast::CellKind::name:           \
    return run_reference<rnnfast_scalar_test::Cell>(p, b);
    RNNFAST_CELLS(RNNFAST_CASE)
#undef RNNFAST_CASE
  }
}
