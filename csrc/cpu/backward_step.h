// SPDX-License-Identifier: Apache-2.0
// The pointwise part of one step of the backward pass: from the total error signal of a sample to delta. Usually it
// runs on the accumulators of the product that brought what comes back (cpu/backward.h). With a projection, and
// where the user limits, cuts or records the signal (cpu/control.h), dL/dh stands in memory first.
#pragma once

#include "cells/all.h"
#include "cpu/control.h"
#include "cpu/job.h"
#include "cpu/pack.h"

namespace RNNFAST_NAMESPACE {

// One thread's share of one direction.
template <class Cell, class T>
class BackwardStep {
 protected:
  using V = TargetVec<T>;
  using Control = SignalControl<T>;
  static constexpr int N = V::kLanes;
  static constexpr int G = Cell::kGates;
  static constexpr int kSaved = Cell::kSaved;

  BackwardStep(const BackwardJob<T>& job, int direction, int index, int count, Barrier& barrier)
      : cell_(job.args->in.variant),
        args_(*job.args),
        in_(job.args->in),
        seq_(job.args->in.sequence),
        d_(direction),
        reverse_(direction == 1 || in_.reversed),
        by_units_(job.plan->split == Split::kUnits),
        index_(index),
        count_(count),
        barrier_(barrier),
        H_(in_.H),
        P_(in_.P),
        y_stride_(in_.directions * in_.P),
        delta_stride_(Cell::kDelta * in_.H),
        control_(args_, job.workspace + direction * job.space->direction_size + job.space->partials, direction,
                 by_units_, index, count),
        staged_(in_.projection || control_.active()) {
    const auto share = [&](int64_t columns) {
      const int64_t vectors = vectors_of<T>(columns);
      return by_units_ ? split_range(vectors, index, count) : Range{0, vectors};
    };
    units_ = share(H_);
    outputs_ = share(P_);
    rows_ = by_units_ ? Range{0, seq_.B} : split_range(seq_.B, index, count);
    const BackwardSpace& space = *job.space;
    T* const memory = job.workspace + direction * space.direction_size;
    delta_ = delta_step_ = memory + space.delta;
    grad_h_ = memory + space.grad_h;
    grad_output_ = memory + space.grad_output;
    cell_output_ = memory + space.cell_output;
    carry_ = memory + space.carry;
    zeros_ = job.workspace + space.zeros;
    if (kSaved > 0) saved_ = args_.saved + d_ * seq_.rows() * kSaved * H_;
    if (Cell::kHasCell) cells_ = args_.cells + d_ * seq_.rows() * H_;
  }

  // Points at time step t. local: its first row, counted in the chunk.
  void start_step(int64_t t, int64_t local) {
    const int64_t row = seq_.first_row(t), active = seq_.active(t);
    had_step_ = seq_.active_before(t, reverse_);
    has_next_ = seq_.active_after(t, reverse_);
    const int64_t before = had_step_ ? seq_.first_row(reverse_ ? t + 1 : t - 1) : 0;
    delta_step_ = delta_ + local * delta_stride_;
    step_end_ = rows_.end < active ? rows_.end : active;
    if constexpr (kSaved > 0) saved_step_ = saved_ + row * kSaved * H_;
    if constexpr (Cell::kHasCell) {
      cells_step_ = cells_ + row * H_;
      cells_before_ = cells_ + before * H_;
      output_step_ = cell_output_ + local * H_;
    }
    grad_h_step_ = grad_h_ + (in_.projection ? local * P_ : 0);
    y_step_ = args_.y + row * y_stride_ + d_ * P_;
    y_before_ = args_.y + before * y_stride_ + d_ * P_;
    if (args_.grad_y) grad_y_step_ = args_.grad_y + row * y_stride_ + d_ * P_;
    if (!control_.active()) return;
    control_.start_step(t);
    if (control_.cuts()) forget_cut_carry();
  }

  RNNFAST_INLINE void prefetch(int64_t b, int64_t unit) {
    if constexpr (kSaved > 0) {
      const T* saved = saved_step_ + b * kSaved * H_ + unit;
#pragma GCC unroll 4
      for (int s = 0; s < kSaved; ++s) __builtin_prefetch(saved + s * H_);
    }
    if constexpr (Cell::kHasCell) __builtin_prefetch(cells_before_ + b * H_ + unit);
    if (args_.grad_y) __builtin_prefetch(grad_y_step_ + b * y_stride_ + unit);
    T* delta = delta_step_ + b * delta_stride_ + unit;
#pragma GCC unroll 4
    for (int g = 0; g < Cell::kDelta; ++g) __builtin_prefetch(delta + g * H_, 1);
  }

  // The total error signal of one sample and one vector of columns of h. back: what comes back from the next step.
  RNNFAST_INLINE void receive(V back, int64_t b, int64_t column, int valid, bool recurrent) {
    V dh = back;
    if (!recurrent && args_.grad_h_n) dh = load_first<V>(args_.grad_h_n + (d_ * seq_.B + b) * P_ + column, valid);
    if (args_.grad_y) dh = dh + load_first<V>(grad_y_step_ + b * y_stride_ + column, valid);
    finish<kWhole>(dh, b, column, valid);
  }

  // The same into memory, for what follows once all of it stands there.
  void stage(V back, int64_t b, int64_t column, int valid) {
    V dh = b < has_next_ && control_.cut(b) ? splat<V>(T(0)) : back;
    if (b >= has_next_ && args_.grad_h_n)
      dh = load_first<V>(args_.grad_h_n + (d_ * seq_.B + b) * P_ + column, valid);
    if (args_.grad_y) dh = dh + load_first<V>(grad_y_step_ + b * y_stride_ + column, valid);
    if constexpr (Cell::kDirect) dh = dh + load_first<V>(carry_ + b * H_ + column, valid);
    store_first(grad_h_step_ + b * P_ + column, dh, valid);
  }

  // With a projection: the gradient of the cell's output, from the total dL/dh.
  RNNFAST_INLINE void receive_output(V dh, int64_t b, int64_t unit, int valid) {
    if (!control_.active()) return finish<kWhole>(dh, b, unit, valid);
    if (!control_.measures()) return finish<kStaged>(dh, b, unit, valid);
    store_first(grad_output_ + b * H_ + unit, dh, valid);
    finish<kCell>(dh, b, unit, valid);
  }

  // Once this thread's share of dL/dh stands: limits it. What is limited by value alone waits for
  // finish_controlled, which has it in registers.
  void limit_hidden() {
    if (control_.measures() || in_.projection) limit(Control::kHidden, grad_h_step_, P_, columns(outputs_, P_));
  }

  // Once dL/dh stands, limited, or with a projection went through W_hr: the rest of a controlled step.
  void finish_controlled() {
    constexpr bool kHasCell = Cell::kHasCell;
    if (!kHasCell || !control_.measures()) {
      if (in_.projection) return;
      for_own_units([&](int64_t b, int64_t unit, int valid) {
        finish<kStaged>(control_.limited(load_first<V>(grad_h_step_ + b * H_ + unit, valid)), b, unit, valid);
      });
      return;
    }
    if constexpr (kHasCell) {
      const T* const dh = in_.projection ? grad_output_ : grad_h_step_;
      if (!in_.projection)
        for_own_units([&](int64_t b, int64_t unit, int valid) {
          finish<kCell>(load_first<V>(dh + b * H_ + unit, valid), b, unit, valid);
        });
      limit(Control::kCell, carry_, H_, columns(units_, H_));
      for_own_units([&](int64_t b, int64_t unit, int valid) {
        finish<kGates>(load_first<V>(dh + b * H_ + unit, valid), b, unit, valid);
      });
    }
  }

  Range columns(Range vectors, int64_t size) const {
    return {vectors.begin * N, vectors.end * N < size ? vectors.end * N : size};
  }
  Range unit_columns() const { return columns(units_, H_); }

 private:
  // What finish does: all of it; all of it for a signal that stands in memory, limited and with what came back past
  // the gates; only the total dL/dc, into carry; the rest, from there.
  enum Part { kWhole, kStaged, kCell, kGates };

  // The cell's backward for one sample and one vector of units. dh: the gradient of the cell's output.
  template <Part kPart>
  RNNFAST_INLINE void finish(V dh, int64_t b, int64_t unit, int valid) {
    typename Cell::template Seen<V> seen;
    if constexpr (kSaved > 0) {
      const T* saved = saved_step_ + b * kSaved * H_ + unit;
#pragma GCC unroll 4
      for (int s = 0; s < kSaved; ++s) seen.saved[s] = load_first<V>(saved + s * H_, valid);
    }
    if constexpr (Cell::kBackwardSeesHidden) seen.h = load_first<V>(y_step_ + b * y_stride_ + unit, valid);
    if constexpr (Cell::kBackwardSeesPrevious)
      seen.h_prev = load_first<V>((b < had_step_ ? y_before_ + b * y_stride_ : initial_hidden(b)) + unit, valid);
    T* const carry = carry_ + b * H_ + unit;
    V dc = dh;
    if constexpr (Cell::kHasCell) {
      seen.c = load_first<V>(cells_step_ + b * H_ + unit, valid);
      seen.c_prev = load_first<V>((b < had_step_ ? cells_before_ + b * H_ : initial_cell(b)) + unit, valid);
      dc = load_first<V>(carry, valid);
      if constexpr (kPart != kGates) dc = dc + cell_.cell_gradient(dh, seen);
      if constexpr (kPart == kStaged) dc = control_.limited(dc);
      if (kPart != kGates && in_.projection) store_first(output_step_ + b * H_ + unit, cell_.output(seen), valid);
      if constexpr (kPart == kCell) return store_first(carry, dc, valid);
    }
    if constexpr (Cell::kDirect && kPart == kWhole) dh = dh + load_first<V>(carry, valid);
    const auto result = cell_.backward(dh, dc, seen);
    T* const delta = delta_step_ + b * delta_stride_ + unit;
#pragma GCC unroll 4
    for (int g = 0; g < Cell::kDelta; ++g) store_first(delta + g * H_, result.delta[g], valid);
    if constexpr (Cell::kHasCell || Cell::kDirect) store_first(carry, result.carry, valid);
  }

  void limit(typename Control::Signal signal, T* values, int64_t stride, Range cols) {
    const Range rows{rows_.begin, step_end_ > rows_.begin ? step_end_ : rows_.begin};
    if (control_.measures()) {
      control_.measure(signal, values, stride, cols, rows);
      if (by_units_) barrier_.wait(count_);
    }
    control_.limit(signal, values, stride, cols, rows);
  }

  // What the next step left in carry for samples that are cut from it.
  void forget_cut_carry() {
    if constexpr (!Cell::kHasCell && !Cell::kDirect) return;
    const Range cols = unit_columns();
    const int64_t end = rows_.end < has_next_ ? rows_.end : has_next_;
    for (int64_t b = rows_.begin; b < end; ++b)
      for (int64_t j = cols.begin; control_.cut(b) && j < cols.end; ++j) carry_[b * H_ + j] = T(0);
  }

  template <class F>
  void for_own_units(F f) {
    const Range cols = unit_columns();
    for (int64_t b = rows_.begin; b < step_end_; ++b)
      for (int64_t j = cols.begin; j < cols.end; j += N) f(b, j, int(cols.end - j < N ? cols.end - j : N));
  }

  const T* initial_cell(int64_t b) const { return in_.c0 ? in_.c0 + (d_ * seq_.B + b) * H_ : zeros_; }
  const T* initial_hidden(int64_t b) const { return in_.h0 ? in_.h0 + (d_ * seq_.B + b) * P_ : zeros_; }

 protected:
  const Cell cell_;
  const LayerBackward<T>& args_;
  const LayerInputs<T>& in_;
  const Sequence& seq_;
  int d_;
  bool reverse_, by_units_;
  int index_, count_;
  Barrier& barrier_;
  int64_t H_, P_, y_stride_, delta_stride_;
  Control control_;
  const bool staged_;  // dL/dh stands in memory before the cell's backward

  Range units_, outputs_, rows_;  // vectors of hidden units, vectors of columns of h, samples
  T *delta_, *grad_h_, *grad_output_, *cell_output_, *carry_;
  const T *saved_ = nullptr, *cells_ = nullptr, *zeros_;

  // The step at work.
  int64_t had_step_ = 0, has_next_ = 0, step_end_ = 0;
  const T *saved_step_ = nullptr, *cells_step_ = nullptr, *cells_before_ = nullptr;
  const T *y_step_ = nullptr, *y_before_ = nullptr, *grad_y_step_ = nullptr;
  T *delta_step_ = nullptr, *grad_h_step_ = nullptr, *output_step_ = nullptr;
};

}  // namespace RNNFAST_NAMESPACE
