// SPDX-License-Identifier: Apache-2.0
// The user's control over the error signal on its way back (core/params.h, Bptt): limiting it, cutting it,
// recording it. The scan stages the total dL/dh_t, and dL/dc_t, of a step in memory; here a thread works on its
// share of that.
//
// A norm is over all units of a sample, which threads share by units: each measures its columns, all meet, and each
// adds up the parts in the same order. By rows a thread has its samples to itself.
#pragma once

#include "cpu/job.h"
#include "cpu/tile.h"

namespace RNNFAST_NAMESPACE {

inline float square_root(float x) { return __builtin_sqrtf(x); }
inline double square_root(double x) { return __builtin_sqrt(x); }

// The Euclidean norm of n neighbours. An error signal may be so small or large that its squares leave the range of
// the type: then it is measured in units of its largest element.
template <class T>
T norm_of(const T* values, int64_t n) {
  using V = TargetVec<T>;
  constexpr int N = V::kLanes, kAtOnce = 4;
  constexpr T kLeast = sizeof(T) == 4 ? T(1e-28) : T(1e-280), kMost = sizeof(T) == 4 ? T(1e28) : T(1e280);
  V sum[kAtOnce] = {};
  int64_t j = 0;
  for (; j + kAtOnce * N <= n; j += kAtOnce * N)
#pragma GCC unroll 4
    for (int i = 0; i < kAtOnce; ++i) {
      const V x = load<V>(values + j + i * N);
      sum[i] = fma(x, x, sum[i]);
    }
  for (; j < n; j += N) {
    const V x = load_first<V>(values + j, int(n - j < N ? n - j : N));
    sum[0] = fma(x, x, sum[0]);
  }
  const T squares = sum_lanes((sum[0] + sum[1]) + (sum[2] + sum[3]));
  if (squares > kLeast && squares < kMost) return square_root(squares);

  T largest = 0;
  for (j = 0; j < n; ++j) largest = absolute(values[j]) > largest ? absolute(values[j]) : largest;
  const T unit = largest > 0 && largest * T(0) == T(0) ? largest : T(1);  // zeros, infinities, NaN: as they are
  double rest = 0;
  for (j = 0; j < n; ++j) rest += double(values[j] / unit) * double(values[j] / unit);
  return T(unit * square_root(rest));
}

template <class T>
class SignalControl {
  using V = TargetVec<T>;
  static constexpr int N = V::kLanes;

 public:
  enum Signal { kHidden, kCell };  // dL/dh, dL/dc

  // partials: [2 signals, threads of the direction, B, 2]: a thread's part of a sample's norm, and how many of its
  // elements are beyond the limit.
  SignalControl(const LayerBackward<T>& args, T* partials, int direction, bool by_units, int index, int count)
      : bptt_(args.bptt),
        seq_(args.in.sequence),
        limit_(T(args.bptt.limit)),
        active_(args.bptt.active() || args.record),
        measures_(args.bptt.clip == Bptt::kNorm || args.record),
        reverse_(direction == 1 || args.in.reversed),
        by_units_(by_units),
        index_(index),
        count_(count),
        partials_(partials),
        record_(args.record ? args.record + direction * seq_.rows() * kRecorded : nullptr) {}

  bool active() const { return active_; }      // the scan has to stage its signals
  bool measures() const { return measures_; }  // norms are needed

  // Time step t comes next.
  void start_step(int64_t t) {
    t_ = t;
    if (bptt_.steps == 0) return;
    alike_ = reverse_ || seq_.lengths == nullptr;
    all_cut_ = alike_ && steps_behind(0) % bptt_.steps == 0;
  }
  bool cuts() const { return bptt_.steps > 0; }
  bool all_cut() const { return all_cut_; }
  // Whether nothing comes back to sample b from its later step.
  bool cut(int64_t b) const { return bptt_.steps > 0 && (alike_ ? all_cut_ : steps_behind(b) % bptt_.steps == 0); }

  // A thread's part of the norms: columns of `values`, row b at b * stride.
  void measure(Signal signal, const T* values, int64_t stride, Range columns, Range rows) {
    T* const parts = partial(signal, index_);
    for (int64_t b = rows.begin; b < rows.end; ++b) {
      const T* const row = values + b * stride + columns.begin;
      parts[2 * b] = norm_of(row, columns.size());
      parts[2 * b + 1] = bptt_.clip == Bptt::kValue ? beyond(row, columns.size()) : T(0);
    }
  }

  // Limits columns of `values` in place, and records. Where norms are needed, every thread has measured.
  void limit(Signal signal, T* values, int64_t stride, Range columns, Range rows) {
    for (int64_t b = rows.begin; b < rows.end; ++b) {
      T* const row = values + b * stride + columns.begin;
      T factor = 1;
      if (measures_) {
        T norm, count;
        add_up(signal, b, norm, count);
        if (bptt_.clip == Bptt::kNorm && norm > limit_) factor = limit_ / norm, count = 1;
        if (record_ && (index_ == 0 || !by_units_)) record(signal, seq_.first_row(t_) + b, norm, count);
      }
      if (bptt_.clip == Bptt::kValue) {
        for_vectors(columns.size(), [&](int64_t j, int valid) {
          store_first(row + j, clamped(load_first<V>(row + j, valid)), valid);
        });
      } else if (factor != T(1)) {
        for_vectors(columns.size(), [&](int64_t j, int valid) {
          store_first(row + j, load_first<V>(row + j, valid) * splat<V>(factor), valid);
        });
      }
    }
  }

  // Of a signal that need not be measured: in registers.
  RNNFAST_INLINE V limited(V x) const { return bptt_.clip == Bptt::kValue ? clamped(x) : x; }

 private:
  // NaN stays NaN.
  RNNFAST_INLINE V clamped(V x) const {
    const V high = splat<V>(limit_), low = splat<V>(-limit_);
    return select(less(high, x), high, select(less(x, low), low, x));
  }

  template <class F>
  static RNNFAST_INLINE void for_vectors(int64_t n, F f) {
    for (int64_t j = 0; j < n; j += N) f(j, int(n - j < N ? n - j : N));
  }

  T beyond(const T* values, int64_t n) const {
    const V limit = splat<V>(limit_), one = splat<V>(T(1)), zero = splat<V>(T(0));
    V count = zero;
    for_vectors(n, [&](int64_t j, int valid) {
      count = count + select(less(limit, absolute(load_first<V>(values + j, valid))), one, zero);
    });
    return sum_lanes(count);
  }

  T* partial(Signal signal, int thread) const { return partials_ + (signal * count_ + thread) * seq_.B * 2; }

  void add_up(Signal signal, int64_t b, T& norm, T& count) const {
    const T* const own = partial(signal, index_);
    norm = own[2 * b], count = own[2 * b + 1];
    if (!by_units_ || count_ == 1) return;
    const T* const first = partial(signal, 0);
    double sum = double(first[2 * b]);
    count = first[2 * b + 1];
    for (int i = 1; i < count_; ++i) {
      const T* const part = partial(signal, i);
      sum = __builtin_hypot(sum, double(part[2 * b]));
      count += part[2 * b + 1];
    }
    norm = T(sum);
  }

  void record(Signal signal, int64_t row, T norm, T count) {
    T* const to = record_ + row * kRecorded;
    if (signal == kHidden) {
      to[0] = norm, to[1] = 0, to[2] = count;
    } else {
      to[1] = norm, to[2] += count;
    }
  }

  // Steps that a sample still makes after the one at work, in processing order.
  int64_t steps_behind(int64_t b) const {
    if (reverse_) return t_ + bptt_.behind;
    return seq_.lengths ? seq_.lengths[b] - 1 - t_ : seq_.T - 1 - t_ + bptt_.behind;
  }

  const Bptt& bptt_;
  const Sequence& seq_;
  const T limit_;
  const bool active_, measures_, reverse_, by_units_;
  const int index_, count_;
  T *const partials_, *const record_;
  int64_t t_ = 0;
  bool alike_ = true, all_cut_ = false;  // all samples are cut at the same steps; at this one
};

}  // namespace RNNFAST_NAMESPACE
