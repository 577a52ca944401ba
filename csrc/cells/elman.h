// SPDX-License-Identifier: Apache-2.0
// The Elman cell's mathematics, forward and backward, for one hidden unit of one sample, on any value type.
//
//   h = phi(a),   phi: tanh, relu or the logistic sigmoid;   a = W x + b_ih + U h' + b_hh
//
// Elman 1990. Nothing need be saved: the derivative of each phi is a function of h.
#pragma once

#include "core/activations.h"

namespace RNNFAST_NAMESPACE {

struct ElmanCell {
  enum Nonlinearity { kTanh, kRelu, kSigmoid };

  static constexpr int kGates = 1;
  static constexpr bool kApart[kGates] = {false};
  static constexpr int kSaved = 0;
  static constexpr int kDelta = 1;
  static constexpr int kDeltaRecurrent = 0;
  static constexpr int kFirstGate = 0;
  static constexpr bool kHasCell = false;
  static constexpr bool kDirect = false;
  static constexpr bool kForwardSeesHidden = false;
  static constexpr bool kBackwardSeesHidden = true;
  static constexpr bool kBackwardSeesPrevious = false;

  RNNFAST_HD explicit ElmanCell(int variant) : nonlinearity(Nonlinearity(variant)) {}

  Nonlinearity nonlinearity;

  template <class V>
  struct Forward {
    V h, c, saved[1];
  };

  template <class V>
  RNNFAST_HD RNNFAST_INLINE Forward<V> forward(const V (&a)[kGates], const V (&)[kGates], V, V) const {
    const V h = activate(a[0]);
    return {h, h, {h}};
  }

  template <class V>
  struct Seen {
    V saved[1], h, h_prev, c, c_prev;
  };

  template <class V>
  struct Backward {
    V delta[kDelta], carry;
  };

  template <class V>
  RNNFAST_HD RNNFAST_INLINE Backward<V> backward(V dh, V, const Seen<V>& s) const {
    const V delta = dh * slope(s.h);
    return {{delta}, delta};
  }

 private:
  template <class V>
  RNNFAST_HD RNNFAST_INLINE V activate(V a) const {
    if (nonlinearity == kTanh) return tanh(a);
    return nonlinearity == kSigmoid ? sigmoid(a) : relu(a);
  }

  // d phi / d a, from h = phi(a). relu: 0 at 0 and 1 at NaN, as torch has it.
  template <class V>
  RNNFAST_HD RNNFAST_INLINE V slope(V h) const {
    const V one = ValueTraits<V>::constant(1);
    if (nonlinearity == kTanh) return one - h * h;
    if (nonlinearity == kSigmoid) return h * (one - h);
    const V zero = ValueTraits<V>::constant(0);
    return select(less(zero, h), one, select(less(zero, one - h), zero, one));
  }
};

}  // namespace RNNFAST_NAMESPACE
