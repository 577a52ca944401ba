// SPDX-License-Identifier: Apache-2.0
// The primitive operations of a value type, for float and double. `cpu/simd.h` gives the same names for vectors.
// A value type V needs: + - * /, ValueTraits<V>::constant(x), less(a, b), select(c, a, b), absolute(a) and
// exponent_of_two(n).
//
// Included once per instruction-set target, inside that target's namespace (RNNFAST_NAMESPACE): a template or
// inline function compiled for AVX-512 must never become the copy that other targets are linked to.
#pragma once

#include "core/macros.h"

namespace RNNFAST_NAMESPACE {

template <class V>
struct ValueTraits;  // Scalar: the element type; constant(x): x in every lane

template <>
struct ValueTraits<float> {
  using Scalar = float;
  RNNFAST_HD static RNNFAST_INLINE float constant(float x) { return x; }
};

template <>
struct ValueTraits<double> {
  using Scalar = double;
  RNNFAST_HD static RNNFAST_INLINE double constant(double x) { return x; }
};

template <class T>
struct FloatFormat;

template <>
struct FloatFormat<float> {
  using Int = int32_t;
  static constexpr int kMantissaBits = 23;
  static constexpr float kExponentBias = 127.0f;
  static constexpr float kRound = 0x1.8p23f;  // adding it rounds to an integer, which ends in the low bits
};

template <>
struct FloatFormat<double> {
  using Int = int64_t;
  static constexpr int kMantissaBits = 52;
  static constexpr double kExponentBias = 1023.0;
  static constexpr double kRound = 0x1.8p52;
};

RNNFAST_HD RNNFAST_INLINE bool less(float a, float b) { return a < b; }
RNNFAST_HD RNNFAST_INLINE bool less(double a, double b) { return a < b; }
RNNFAST_HD RNNFAST_INLINE float select(bool c, float a, float b) { return c ? a : b; }
RNNFAST_HD RNNFAST_INLINE double select(bool c, double a, double b) { return c ? a : b; }
RNNFAST_HD RNNFAST_INLINE float absolute(float a) { return a < 0 ? -a : a; }
RNNFAST_HD RNNFAST_INLINE double absolute(double a) { return a < 0 ? -a : a; }

// 2^n for an integer-valued n: n + bias is moved into the exponent field. n must be a normal exponent.
RNNFAST_HD RNNFAST_INLINE float exponent_of_two(float n) {
  const float shifted = n + (FloatFormat<float>::kRound + FloatFormat<float>::kExponentBias);
  int32_t bits;
  __builtin_memcpy(&bits, &shifted, sizeof bits);
  bits = static_cast<int32_t>(static_cast<uint32_t>(bits) << FloatFormat<float>::kMantissaBits);
  float result;
  __builtin_memcpy(&result, &bits, sizeof result);
  return result;
}

RNNFAST_HD RNNFAST_INLINE double exponent_of_two(double n) {
  const double shifted = n + (FloatFormat<double>::kRound + FloatFormat<double>::kExponentBias);
  int64_t bits;
  __builtin_memcpy(&bits, &shifted, sizeof bits);
  bits = static_cast<int64_t>(static_cast<uint64_t>(bits) << FloatFormat<double>::kMantissaBits);
  double result;
  __builtin_memcpy(&result, &bits, sizeof result);
  return result;
}

}  // namespace RNNFAST_NAMESPACE
