// SPDX-License-Identifier: Apache-2.0
// A layer on the emulated device, as its driver runs it, against the plain loop in double (problem.h). Inputs are
// rounded to the storage type before either sees them.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <limits>
#include <memory>
#include <string>

#include "../check.h"
#include "../problem.h"
#undef RNNFAST_NAMESPACE
#include "cuda/layer.h"
#include "emulator/gemm.h"

namespace RNNFAST_NAMESPACE {

// What a case asks for besides the problem's sizes.
struct Ask {
  unsigned number = 0;  // names the case in reports
  bool training = true, h0 = true, c0 = true, grad_y = true, grad_h_n = true, grad_c_n = true;
  bool record = false;
  bool want_x = true, want_h0 = true, want_c0 = true, want_weights = true, want_biases = true;
  enum XLayout { kContiguous, kBatchFirst, kPadded } x = kContiguous;  // kPadded: 3 values behind each row
  double tolerance_factor = 1;
  double grad_h_n_scale = 1;  // what the kernels get is so much larger than what the loop gets
};

template <class S>
struct Tolerance {
  static constexpr double value = 2e-5;
};
template <>
struct Tolerance<double> {
  static constexpr double value = 1e-12;
};
template <>
struct Tolerance<Half> {
  static constexpr double value = 16 * 0x1p-11;
};
template <>
struct Tolerance<BFloat16> {
  static constexpr double value = 16 * 0x1p-8;
};

inline const char* name_of(Dtype dtype) {
  static const char* const kNames[] = {"float", "double", "half", "bfloat16"};
  return kNames[static_cast<int>(dtype)];
}

template <class S>
std::vector<S> stored(const Doubles& from) {
  std::vector<S> to;
  to.reserve(from.size());
  for (double e : from) to.push_back(narrow<S>(static_cast<Compute<S>>(e)));
  return to;
}

template <class S>
void round_values(Problem& p) {
  const auto round = [](Doubles& v) {
    for (double& e : v) e = widen(narrow<S>(static_cast<Compute<S>>(e)));
  };
  for (Doubles* v : {&p.x, &p.h0, &p.c0, &p.grad_y, &p.grad_h, &p.grad_c}) round(*v);
  for (auto& direction : p.w)
    for (Doubles& v : direction) round(v);
}

// Device memory of exact size, so that AddressSanitizer sees what is beyond; every byte begins as that of a NaN.
class Workspace {
 public:
  explicit Workspace(size_t bytes) : data_(std::aligned_alloc(256, (bytes + 256) / 256 * 256), &std::free) {
    __builtin_memset(data_.get(), 0xff, bytes);
  }
  void* get() const { return data_.get(); }

 private:
  std::unique_ptr<void, void (*)(void*)> data_;
};

template <class S>
class LayerCase {
  using V = Compute<S>;

 public:
  // Zeroes what the case leaves out, for the reference, and runs that.
  LayerCase(const Problem& problem, const Ask& ask) : p_(problem), ask_(ask), want_(prepare()) {
    run_reference(p_, want_);
  }

  // Forward and backward by the driver; the first difference in words, or nothing.
  std::string difference(const CudaPlan& forward, const CudaPlan& backward) {
    difference_.clear();
    if (!run_forward(forward)) return difference_;
    compare("y", y_, want_.y), compare("h_n", h_n_, want_.h_n), compare("c_n", c_n_, want_.c_n);
    if (!ask_.training) return difference_;
    compare("saved", saved_, want_.saved), compare("cells", cells_, want_.cells);
    if (!run_backward(backward)) return difference_;
    compare("grad_x", grad_x_, want_.dx);
    compare("grad_h0", grad_h0_, want_.dh0), compare("grad_c0", grad_c0_, want_.dc0);
    if (sizeof(S) == 2)  // rounding moves elements over the limit: their number is compared in float and double
      for (size_t i = 2; i < record_.size(); i += kRecorded) want_.record[i] = record_[i];
    compare("record", record_, want_.record);
    static const char* const kNames[] = {"grad_w_ih", "grad_w_hh", "grad_b_ih", "grad_b_hh", "grad_w_hr"};
    for (int d = 0; d < p_.D; ++d)
      for (int k = 0; k < 5; ++k) compare(kNames[k], grad_w_[d][k], want_.dw[d][k]);
    return difference_;
  }
  void check(const CudaPlan& forward, const CudaPlan& backward) {
    CHECK(difference(forward, backward).empty(), "%s", difference_.c_str());
  }

  // Everything that the last run wrote, to compare bits.
  std::vector<unsigned char> bits() const {
    std::vector<unsigned char> all;
    const auto add = [&](const auto& v) {
      const auto* const bytes = reinterpret_cast<const unsigned char*>(v.data());
      all.insert(all.end(), bytes, bytes + v.size() * sizeof(v[0]));
    };
    for (const auto* v : {&y_, &h_n_, &c_n_, &grad_x_, &grad_h0_, &grad_c0_}) add(*v);
    for (const auto& direction : grad_w_)
      for (const auto& v : direction) add(v);
    add(saved_), add(cells_), add(record_);
    return all;
  }

 private:
  template <class T>
  static std::vector<T> unset(int64_t size) {
    std::vector<T> v(static_cast<size_t>(size));
    if (size > 0) __builtin_memset(static_cast<void*>(v.data()), 0xff, v.size() * sizeof(T));
    return v;
  }

  static Doubles scaled(Doubles v, double factor) {
    for (double& e : v) e *= factor;
    return v;
  }

  Buffers<double> prepare() {
    round_values<S>(p_);
    const auto leave_out = [](bool given, Doubles& v) {
      if (!given) std::fill(v.begin(), v.end(), 0.0);
    };
    leave_out(ask_.h0, p_.h0), leave_out(ask_.c0, p_.c0);
    leave_out(ask_.grad_y, p_.grad_y), leave_out(ask_.grad_h_n, p_.grad_h), leave_out(ask_.grad_c_n, p_.grad_c);
    h0_ = stored<S>(p_.h0), c0_ = stored<S>(p_.c0);
    grad_y_ = stored<S>(p_.grad_y), grad_h_n_ = stored<S>(scaled(p_.grad_h, ask_.grad_h_n_scale)),
    grad_c_n_ = stored<S>(p_.grad_c);
    for (int d = 0; d < p_.D; ++d)
      for (int k = 0; k < 5; ++k) w_[d][k] = stored<S>(p_.w[d][k]);
    lay_out_x();
    return Buffers<double>(p_);
  }

  void lay_out_x() {
    const int64_t T = p_.T, B = p_.B, I = p_.I;
    const bool batch_first = ask_.x == Ask::kBatchFirst && !p_.packed;
    const int64_t width = ask_.x == Ask::kPadded ? I + 3 : I;
    in_.x_row = batch_first ? T * width : width;
    in_.x_step = p_.packed ? 0 : batch_first ? width : B * width;
    x_ = unset<S>((p_.rows() - 1) * width + I);
    for (int64_t r = 0; r < p_.rows(); ++r) {
      const int64_t at = p_.packed ? r * in_.x_row : r / B * in_.x_step + r % B * in_.x_row;
      for (int64_t j = 0; j < I; ++j)
        x_[static_cast<size_t>(at + j)] = narrow<S>(static_cast<V>(p_.x[static_cast<size_t>(r * I + j)]));
    }
  }

  void fill_inputs() {
    in_.sequence = {p_.T, p_.B, p_.packed ? p_.sizes.data() : nullptr, p_.packed ? p_.offsets.data() : nullptr,
                    p_.packed ? p_.lengths.data() : nullptr};
    in_.I = p_.I, in_.H = p_.H, in_.P = p_.P, in_.directions = p_.D;
    in_.variant = p_.cell.variant, in_.projection = p_.projection();
    in_.x = x_.data();
    in_.h0 = ask_.h0 ? h0_.data() : nullptr;
    in_.c0 = ask_.c0 && p_.cell.has_cell ? c0_.data() : nullptr;
    for (int d = 0; d < p_.D; ++d)
      in_.weights[d] = {w_[d][0].data(), w_[d][1].data(), p_.biases ? w_[d][2].data() : nullptr,
                        p_.biases ? w_[d][3].data() : nullptr, p_.projection() ? w_[d][4].data() : nullptr};
  }

  bool run_forward(const CudaPlan& plan) {
    fill_inputs();
    const int64_t N = p_.rows(), D = p_.D;
    y_ = unset<S>(N * D * p_.P), h_n_ = unset<S>(D * p_.B * p_.P);
    if (p_.cell.has_cell) c_n_ = unset<S>(D * p_.B * p_.H);
    if (ask_.training) saved_ = unset<V>(D * N * p_.cell.saved * p_.H);
    if (ask_.training && p_.cell.has_cell) cells_ = unset<V>(D * N * p_.H);
    CudaForward<S> args;
    args.in = in_;
    args.y = y_.data(), args.h_n = h_n_.data(), args.c_n = c_n_.data();
    args.saved = saved_.data(), args.cells = cells_.data();
    args.training = ask_.training;
    const Workspace space(forward_workspace_bytes(p_.kind, args, plan));
    return succeeded(layer_forward(p_.kind, args, plan, space.get(), host_gemm(), Stream{}));
  }

  bool run_backward(const CudaPlan& plan) {
    CudaBackward<S> args;
    args.in = in_;
    args.bptt = p_.bptt;
    record_ = unset<V>(ask_.record ? p_.D * p_.rows() * kRecorded : 0);
    if (ask_.record) args.record = record_.data();
    args.y = y_.data(), args.saved = saved_.data(), args.cells = cells_.data();
    if (ask_.grad_y) args.grad_y = grad_y_.data();
    if (ask_.grad_h_n) args.grad_h_n = grad_h_n_.data();
    if (ask_.grad_c_n && p_.cell.has_cell) args.grad_c_n = grad_c_n_.data();
    const auto asked = [](bool wanted, std::vector<S>& to, size_t size) {
      to = unset<S>(wanted ? static_cast<int64_t>(size) : 0);
      return wanted ? to.data() : nullptr;
    };
    args.grad_x = asked(ask_.want_x, grad_x_, p_.x.size());
    args.grad_h0 = asked(ask_.want_h0, grad_h0_, p_.h0.size());
    args.grad_c0 = asked(ask_.want_c0 && p_.cell.has_cell, grad_c0_, p_.c0.size());
    for (int d = 0; d < p_.D; ++d) {
      std::vector<S>* const w = grad_w_[d];
      args.grad_w_ih[d] = asked(ask_.want_weights, w[0], p_.w[d][0].size());
      args.grad_w_hh[d] = asked(ask_.want_weights, w[1], p_.w[d][1].size());
      args.grad_b_ih[d] = asked(ask_.want_biases && p_.biases, w[2], p_.w[d][2].size());
      args.grad_b_hh[d] = asked(ask_.want_biases && p_.biases, w[3], p_.w[d][3].size());
      args.grad_w_hr[d] = asked(ask_.want_weights && p_.projection(), w[4], p_.w[d][4].size());
    }
    const Workspace space(backward_workspace_bytes(p_.kind, args, plan));
    return succeeded(layer_backward(p_.kind, args, plan, space.get(), host_gemm(), Stream{}));
  }

  std::string describe() const {
    char text[256];
    static const char* const kClips[] = {"no clip", "clip by value", "clip by norm"};
    std::snprintf(
        text, sizeof(text),
        "case %u: %s, %s, T=%lld B=%lld I=%lld H=%lld P=%lld D=%d packed=%d training=%d h0=%d, %s, steps=%lld",
        ask_.number, p_.cell.name, name_of(kDtype<S>), (long long)p_.T, (long long)p_.B, (long long)p_.I,
        (long long)p_.H, (long long)p_.P, p_.D, p_.packed, ask_.training, ask_.h0, kClips[p_.bptt.clip],
        (long long)p_.bptt.steps);
    return text;
  }

  bool succeeded(const Status& status) {
    if (!status) difference_ = describe() + ": " + status.operation + ": " + status.text;
    return static_cast<bool>(status);
  }

  // Empty: not asked for.
  template <class T>
  void compare(const char* name, const std::vector<T>& got, const Doubles& want) {
    double scale = 1;
    for (double e : want) scale = std::max(scale, std::abs(e));
    for (size_t i = 0; i < got.size() && difference_.empty(); ++i) {
      const double value = static_cast<double>(widen(got[i]));
      if (std::abs(value - want[i]) <= Tolerance<S>::value * ask_.tolerance_factor * scale) continue;
      char text[160];
      std::snprintf(text, sizeof(text), "%s[%zu]: got %g, expected %g, in ", name, i, value, want[i]);
      difference_ = text + describe();
    }
  }

  Problem p_;
  const Ask ask_;
  LayerInputs<S> in_;
  std::vector<S> x_, h0_, c0_, grad_y_, grad_h_n_, grad_c_n_, w_[2][5];
  Buffers<double> want_;
  std::vector<S> y_, h_n_, c_n_, grad_x_, grad_h0_, grad_c0_, grad_w_[2][5];
  std::vector<V> saved_, cells_, record_;
  std::string difference_;
};

// Sizes and options of case `number`, drawn; each problem has at most `most_hidden` units.
struct DrawnCase {
  CellKind kind = CellKind::lstm;
  int64_t T = 1, B = 1, I = 1, H = 1, P = 1;
  int directions = 1;
  bool packed = false, biases = true;
  Bptt bptt;
  Ask ask;

  DrawnCase(unsigned number, int most_hidden, bool projections, bool norms) {
    std::mt19937 gen(number);
    const auto below = [&](unsigned n) { return static_cast<int64_t>(gen() % n); };
    const auto mostly = [&] { return below(5) > 0; };
    ask.number = number;
    kind = static_cast<CellKind>(below(kCellCount));
    T = 1 + below(6), B = 1 + below(9), I = 1 + below(40);
    H = below(3) == 0 ? 1 + below(9) : 1 + below(static_cast<unsigned>(most_hidden));
    P = H;
    if (projections && kind == CellKind::lstm && H > 1 && below(3) > 0) P = 1 + below(static_cast<unsigned>(H - 1));
    directions = 1 + static_cast<int>(below(2));
    packed = below(2) == 0, biases = mostly();
    ask.training = mostly();
    ask.h0 = mostly(), ask.c0 = mostly();
    ask.grad_y = mostly(), ask.grad_h_n = mostly(), ask.grad_c_n = mostly();
    ask.want_x = mostly(), ask.want_h0 = mostly(), ask.want_c0 = mostly();
    ask.want_weights = mostly(), ask.want_biases = mostly();
    ask.x = static_cast<Ask::XLayout>(below(3));
    bptt.clip = static_cast<Bptt::Clip>(below(norms ? 3 : 2));
    if (bptt.clip != Bptt::kNone) bptt.limit = 0.1 + 0.1 * static_cast<double>(below(8));
    if (below(3) == 0) bptt.steps = 1 + below(4);
    ask.record = below(2) == 0;
  }

  Problem problem() const {
    Problem p(kind, T, B, I, H, P, directions, packed, biases);
    p.bptt = bptt;
    return p;
  }
};

}  // namespace RNNFAST_NAMESPACE
