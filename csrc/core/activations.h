// SPDX-License-Identifier: Apache-2.0
// exp, tanh, sigmoid and relu on any value type: at most 2 ulp in float, 4 ulp in double over the whole range,
// saturating, NaN in NaN out. Branch-free. Coefficients are our own Chebyshev fits (docs/architecture.md,
// "Activations").
#pragma once

#include "core/scalar.h"

namespace RNNFAST_NAMESPACE {

template <class T>
struct ActivationConstants;

template <>
struct ActivationConstants<float> {
  static constexpr float kLog2E = 0x1.715476p+0f;
  static constexpr float kLn2High = 0x1.62e4p-1f;  // 16 bits: n * kLn2High is exact
  static constexpr float kLn2Low = 0x1.7f7d1cp-20f;
  static constexpr float kExpMin = -104.0f;  // below: 0
  static constexpr float kExpMax = 89.0f;    // above: infinity
  static constexpr float kTanhMax = 10.0f;   // above: 1
  // (exp(r) - 1 - r) / r^2 for |r| <= ln(2) / 2, ascending powers of r
  static constexpr float kExp[] = {0x1.000000p-1f, 0x1.555556p-3f,  0x1.5554e8p-5f,
                                   0x1.1110e0p-7f, 0x1.6d43b0p-10f, 0x1.a1256cp-13f};
  // (tanh(x) - x) / x^3 for |x| <= 0.625, ascending powers of x^2
  static constexpr float kTanh[] = {-0x1.555556p-2f, 0x1.1110eap-3f,  -0x1.ba08c4p-5f,
                                    0x1.64a976p-6f,  -0x1.116a16p-7f, 0x1.2c83c0p-9f};
};

template <>
struct ActivationConstants<double> {
  static constexpr double kLog2E = 0x1.71547652b82fep+0;
  static constexpr double kLn2High = 0x1.62e42ffp-1;  // 32 bits
  static constexpr double kLn2Low = -0x1.718432a1b0e26p-35;
  static constexpr double kExpMin = -746.0;
  static constexpr double kExpMax = 710.0;
  static constexpr double kTanhMax = 20.0;
  static constexpr double kExp[] = {0x1.0000000000000p-1,  0x1.5555555555557p-3,  0x1.5555555555556p-5,
                                    0x1.11111111100bep-7,  0x1.6c16c16c162c3p-10, 0x1.a01a01abf85abp-13,
                                    0x1.a01a01a6e1e2ap-16, 0x1.71de01fdbf9cap-19, 0x1.27e4db46cddd1p-22,
                                    0x1.af4e554377204p-26, 0x1.1f7340dbc337ep-29};
  static constexpr double kTanh[] = {-0x1.5555555555555p-2,  0x1.11111111110a8p-3,   -0x1.ba1ba1ba0f126p-5,
                                     0x1.664f487e0a749p-6,   -0x1.226e3473dce5cp-7,  0x1.d6d39ae3905e2p-9,
                                     -0x1.7d9f6f23e8682p-10, 0x1.3526e9ed54da1p-11,  -0x1.f243823c8c981p-13,
                                     0x1.8445870f6fe41p-14,  -0x1.05bbdae896297p-15, 0x1.b33642a122cddp-18};
};

// c[I] + c[I + 1] x + c[I + 2] x^2 + ..., by Horner's rule. Coefficients are template arguments, since device code
// may read an element of a static array only where that is a constant expression.
template <const auto& c, int I = 0, class V>
RNNFAST_HD RNNFAST_INLINE V polynomial(V x) {
  using Traits = ValueTraits<V>;
  constexpr auto kCoefficient = c[I];
  if constexpr (I + 1 == sizeof(c) / sizeof(c[0])) {
    return Traits::constant(kCoefficient);
  } else {
    return polynomial<c, I + 1>(x) * x + Traits::constant(kCoefficient);
  }
}

// x = n ln(2) + r with integer n and |r| <= ln(2) / 2; returns exp(r), and n as a floating-point number.
template <class V>
RNNFAST_HD RNNFAST_INLINE V exp_reduced(V x, V& n) {
  using Traits = ValueTraits<V>;
  using T = typename Traits::Scalar;
  using C = ActivationConstants<T>;
  const V round = Traits::constant(FloatFormat<T>::kRound);
  const V shifted = x * Traits::constant(C::kLog2E) + round;
  n = shifted - round;
  V r = x - n * Traits::constant(C::kLn2High);
  r = r - n * Traits::constant(C::kLn2Low);
  const V q = polynomial<C::kExp>(r);
  return (r * r) * q + r + Traits::constant(T(1));
}

template <class V>
RNNFAST_HD RNNFAST_INLINE V exp(V x) {
  using Traits = ValueTraits<V>;
  using T = typename Traits::Scalar;
  using C = ActivationConstants<T>;
  const V low = Traits::constant(C::kExpMin);
  const V high = Traits::constant(C::kExpMax);
  x = select(less(x, low), low, x);  // NaN compares false and stays
  x = select(less(high, x), high, x);
  V n;
  const V y = exp_reduced(x, n);
  // In two factors, since 2^n alone may lie outside the normal exponents.
  const V round = Traits::constant(FloatFormat<T>::kRound);
  const V half = (n * Traits::constant(T(0.5)) + round) - round;
  return y * exponent_of_two(half) * exponent_of_two(n - half);
}

// NaN stays NaN.
template <class V>
RNNFAST_HD RNNFAST_INLINE V relu(V x) {
  const V zero = ValueTraits<V>::constant(0);
  return select(less(x, zero), zero, x);
}

template <class V>
RNNFAST_HD RNNFAST_INLINE V sigmoid(V x) {
  using Traits = ValueTraits<V>;
  using T = typename Traits::Scalar;
  const V one = Traits::constant(T(1));
  const V zero = Traits::constant(T(0));
  const V e = exp(zero - absolute(x));
  const V sum = one + e;
  const V lost = (one - sum) + e;  // what rounding took from 1 + e, exactly
  const V negative = e / sum;      // sigmoid(-|x|); to first order in `lost`, since 1 / sum = 1 - negative
  const V corrected = negative - negative * lost * (one - negative);
  return select(less(x, zero), corrected, one - corrected);
}

template <class V>
RNNFAST_HD RNNFAST_INLINE V tanh(V x) {
  using Traits = ValueTraits<V>;
  using T = typename Traits::Scalar;
  using C = ActivationConstants<T>;
  const V zero = Traits::constant(T(0));
  const V one = Traits::constant(T(1));
  const V two = Traits::constant(T(2));
  const V magnitude = absolute(x);
  const V limit = Traits::constant(C::kTanhMax);
  const V bounded = select(less(limit, magnitude), limit, magnitude);
  V n;
  const V reduced = exp_reduced(bounded + bounded, n);
  const V e = reduced * exponent_of_two(n);
  const V large = one - two / (e + one);
  const V square = x * x;
  const V small = x * (square * polynomial<C::kTanh>(square) + one);
  const V signed_large = select(less(x, zero), zero - large, large);
  return select(less(magnitude, Traits::constant(T(0.625))), small, signed_large);
}

}  // namespace RNNFAST_NAMESPACE
