// SPDX-License-Identifier: Apache-2.0
// The LSTM cell's mathematics, forward and backward, for one hidden unit of one sample, on any value type
// (float, double, a SIMD vector; CUDA threads and tensors later).
//
//   i = sigmoid(a_i)   f = sigmoid(a_f)   g = tanh(a_g)   o = sigmoid(a_o)
//   c = f c' + i g     h = o tanh(c)
//
// a: gate pre-activations in torch's order i, f, g, o; c': the cell state of the step before.
// Hochreiter and Schmidhuber 1997; with the forget gate of Gers, Schmidhuber and Cummins 2000.
#pragma once

#include "core/activations.h"

namespace RNNFAST_NAMESPACE {

struct LstmCell {
  static constexpr int kGates = 4;

  template <class V>
  struct Gates {
    V i, f, g, o;
  };

  template <class V>
  struct State {
    V h, c;
  };

  template <class V>
  RNNFAST_HD static RNNFAST_INLINE Gates<V> activate(V a_i, V a_f, V a_g, V a_o) {
    return {sigmoid(a_i), sigmoid(a_f), tanh(a_g), sigmoid(a_o)};
  }

  template <class V>
  RNNFAST_HD static RNNFAST_INLINE State<V> forward(const Gates<V>& gates, V c_prev) {
    const V c = gates.f * c_prev + gates.i * gates.g;
    return {gates.o * tanh(c), c};
  }

  // The share of dL/dc that arrives through h = o tanh(c).
  template <class V>
  RNNFAST_HD static RNNFAST_INLINE V cell_gradient(V dh, const Gates<V>& gates, V tanh_c) {
    const V one = ValueTraits<V>::constant(1);
    return dh * gates.o * (one - tanh_c * tanh_c);
  }

  // From the total dL/dh and dL/dc of a step: the gradient of its pre-activations (delta, in gate order), and what
  // goes back to c'.
  template <class V>
  struct Backward {
    V delta[kGates];
    V dc_prev;
  };

  template <class V>
  RNNFAST_HD static RNNFAST_INLINE Backward<V> backward(V dh, V dc, const Gates<V>& gates, V c_prev, V tanh_c) {
    const V one = ValueTraits<V>::constant(1);
    Backward<V> result;
    result.delta[0] = dc * gates.g * (gates.i * (one - gates.i));
    result.delta[1] = dc * c_prev * (gates.f * (one - gates.f));
    result.delta[2] = dc * gates.i * (one - gates.g * gates.g);
    result.delta[3] = dh * tanh_c * (gates.o * (one - gates.o));
    result.dc_prev = dc * gates.f;
    return result;
  }
};

}  // namespace RNNFAST_NAMESPACE
