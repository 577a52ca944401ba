// SPDX-License-Identifier: Apache-2.0
// The LSTM cell's mathematics, forward and backward, for one hidden unit of one sample, on any value type
// (float, double, a SIMD vector, a tensor; CUDA threads later).
//
//   i = sigmoid(a_i)   f = sigmoid(a_f)   g = tanh(a_g)   o = sigmoid(a_o)
//   c = f c' + i g     h = o tanh(c)
//
// a: gate pre-activations in torch's order i, f, g, o; c': the cell state of the step before.
// Hochreiter and Schmidhuber 1997; with the forget gate of Gers, Schmidhuber and Cummins 2000. With a projection
// (Sak, Senior and Beaufays 2014) the layer multiplies h by W_hr; the cell knows nothing of it.
#pragma once

#include "core/activations.h"

namespace RNNFAST_NAMESPACE {

struct LstmCell {
  static constexpr int kGates = 4;
  static constexpr bool kApart[kGates] = {false, false, false, false};  // see docs/architecture.md, "A cell"
  static constexpr int kSaved = 4;                                      // i, f, g, o
  static constexpr int kDelta = 4;
  static constexpr int kDeltaRecurrent = 0;
  static constexpr int kFirstGate = 0;
  static constexpr bool kHasCell = true;
  static constexpr bool kDirect = false;
  static constexpr bool kForwardSeesHidden = false;
  static constexpr bool kBackwardSeesHidden = false;
  static constexpr bool kBackwardSeesPrevious = false;

  RNNFAST_HD explicit LstmCell(int) {}

  template <class V>
  struct Forward {
    V h, c, saved[kSaved];
  };

  template <class V>
  RNNFAST_HD RNNFAST_INLINE Forward<V> forward(const V (&a)[kGates], const V (&)[kGates], V, V c_prev) const {
    const V i = sigmoid(a[0]), f = sigmoid(a[1]), g = tanh(a[2]), o = sigmoid(a[3]);
    const V c = f * c_prev + i * g;
    return {o * tanh(c), c, {i, f, g, o}};
  }

  // What the forward pass left of a step.
  template <class V>
  struct Seen {
    V saved[kSaved], h, h_prev, c, c_prev;
  };

  // h, from what was saved.
  template <class V>
  RNNFAST_HD RNNFAST_INLINE V output(const Seen<V>& s) const {
    return s.saved[3] * tanh(s.c);
  }

  // The share of dL/dc that arrives through h = o tanh(c).
  template <class V>
  RNNFAST_HD RNNFAST_INLINE V cell_gradient(V dh, const Seen<V>& s) const {
    const V one = ValueTraits<V>::constant(1);
    const V tanh_c = tanh(s.c);
    return dh * s.saved[3] * (one - tanh_c * tanh_c);
  }

  // From the total dL/dh and dL/dc of a step: the gradient of its pre-activations (delta, in gate order), and what
  // goes back to c'.
  template <class V>
  struct Backward {
    V delta[kDelta], carry;
  };

  template <class V>
  RNNFAST_HD RNNFAST_INLINE Backward<V> backward(V dh, V dc, const Seen<V>& s) const {
    const V one = ValueTraits<V>::constant(1);
    const V i = s.saved[0], f = s.saved[1], g = s.saved[2], o = s.saved[3];
    return {{dc * g * (i * (one - i)), dc * s.c_prev * (f * (one - f)), dc * i * (one - g * g),
             dh * tanh(s.c) * (o * (one - o))},
            dc * f};
  }
};

}  // namespace RNNFAST_NAMESPACE
