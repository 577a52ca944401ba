// SPDX-License-Identifier: Apache-2.0
// The GRU cell's mathematics in torch's form (linear before reset), forward and backward, for one hidden unit of
// one sample, on any value type.
//
//   r = sigmoid(x_r + u_r)   z = sigmoid(x_z + u_z)   n = tanh(x_n + r u_n)   h = (1 - z) n + z h'
//
// x: the input's share of the pre-activations (W x + b_ih), u: the recurrent share (U h' + b_hh), which n needs by
// itself. Gate order is torch's: r, z, n. Cho et al. 2014; this form: Chung et al. 2014, as cuDNN has it.
#pragma once

#include "core/activations.h"

namespace RNNFAST_NAMESPACE {

struct GruCell {
  static constexpr int kGates = 3;
  static constexpr bool kApart[kGates] = {false, false, true};
  static constexpr int kSaved = 4;  // r, z, n, u_n
  // delta: n, r, z, r * n. Its first three are the gradient of x, its last three that of u.
  static constexpr int kDelta = 4;
  static constexpr int kDeltaRecurrent = 1;
  static constexpr int kFirstGate = 2;
  static constexpr bool kHasCell = false;
  static constexpr bool kDirect = true;
  static constexpr bool kForwardSeesHidden = true;
  static constexpr bool kBackwardSeesHidden = false;
  static constexpr bool kBackwardSeesPrevious = true;

  RNNFAST_HD explicit GruCell(int) {}

  template <class V>
  struct Forward {
    V h, c, saved[kSaved];
  };

  // a: x + u of r and z, u of n; x[2]: x_n.
  template <class V>
  RNNFAST_HD RNNFAST_INLINE Forward<V> forward(const V (&a)[kGates], const V (&x)[kGates], V h_prev, V) const {
    const V r = sigmoid(a[0]), z = sigmoid(a[1]);
    const V n = tanh(x[2] + r * a[2]);
    const V h = n + z * (h_prev - n);
    return {h, h, {r, z, n, a[2]}};
  }

  template <class V>
  struct Seen {
    V saved[kSaved], h, h_prev, c, c_prev;
  };

  template <class V>
  struct Backward {
    V delta[kDelta], carry;  // carry: what goes back to h' past the gates
  };

  template <class V>
  RNNFAST_HD RNNFAST_INLINE Backward<V> backward(V dh, V, const Seen<V>& s) const {
    const V one = ValueTraits<V>::constant(1);
    const V r = s.saved[0], z = s.saved[1], n = s.saved[2], u_n = s.saved[3];
    const V d_n = dh * (one - z) * (one - n * n);
    const V d_z = dh * (s.h_prev - n) * (z * (one - z));
    const V d_r = d_n * u_n * (r * (one - r));
    return {{d_n, d_r, d_z, d_n * r}, dh * z};
  }
};

}  // namespace RNNFAST_NAMESPACE
