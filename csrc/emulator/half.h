// SPDX-License-Identifier: Apache-2.0
// 16-bit storage types and tf32, converted as the device converts them: to nearest, ties to even (tf32: ties away
// from zero), NaN to the device's one NaN.
#pragma once

#include <cstdint>

namespace rnnfast::emulator {

// In a namespace of their own, as are the views: a kernel that passes one to a primitive must not find the
// emulator's function of the same name as well.
namespace types {
struct Half {
  uint16_t bits;
};
struct BFloat16 {
  uint16_t bits;
};
struct Tf32 {};
}  // namespace types
using types::BFloat16;
using types::Half;
using types::Tf32;

inline float float_of(uint32_t bits) {
  float x;
  __builtin_memcpy(&x, &bits, sizeof(x));
  return x;
}
inline uint32_t bits_of(float x) {
  uint32_t bits;
  __builtin_memcpy(&bits, &x, sizeof(bits));
  return bits;
}

// x / 2^shift to nearest, ties to even; shift in [1, 31].
constexpr uint32_t shift_right_even(uint32_t x, int shift) {
  const uint32_t half = 1u << (shift - 1), rest = x & ((half << 1) - 1), kept = x >> shift;
  return kept + (rest > half || (rest == half && (kept & 1)) ? 1 : 0);
}

inline float to_float(Half h) {
  const uint32_t sign = static_cast<uint32_t>(h.bits & 0x8000) << 16, magnitude = h.bits & 0x7fff;
  if (magnitude >= 0x7c00) return float_of(sign | 0x7f800000 | (magnitude & 0x3ff) << 13);
  if (magnitude >= 0x400) return float_of(sign | ((magnitude << 13) + (112u << 23)));
  return float_of(sign | bits_of(static_cast<float>(magnitude) * 0x1p-24f));  // subnormal: exact
}
inline float to_float(BFloat16 b) { return float_of(static_cast<uint32_t>(b.bits) << 16); }

inline Half to_half(float x) {
  const uint32_t bits = bits_of(x), sign = bits >> 16 & 0x8000, magnitude = bits & 0x7fffffff;
  uint32_t result;
  if (magnitude > 0x7f800000)
    return {0x7fff};
  else if (magnitude >= 0x47800000)  // 2^16 and above
    result = 0x7c00;
  else if (magnitude >= 0x38800000)  // normal: a carry out of the mantissa raises the exponent, to infinity at last
    result = shift_right_even(magnitude - (112u << 23), 13);
  else if (magnitude >= 0x33000000)  // subnormal: a multiple of 2^-24
    result = shift_right_even((magnitude & 0x7fffff) | 0x800000, 126 - static_cast<int>(magnitude >> 23));
  else
    result = 0;
  return {static_cast<uint16_t>(sign | result)};
}

inline BFloat16 to_bfloat16(float x) {
  const uint32_t bits = bits_of(x);
  if ((bits & 0x7fffffff) > 0x7f800000) return {0x7fff};
  return {static_cast<uint16_t>(shift_right_even(bits, 16))};
}

// cvt.rna.tf32.f32: 10 bits of mantissa, ties away from zero. On devices that have it only (mma.cpp reports).
constexpr uint32_t round_to_tf32(uint32_t bits) {
  if ((bits & 0x7fffffff) > 0x7f800000) return 0x7fffffff;
  if ((bits & 0x7fffffff) == 0x7f800000) return bits;
  return (bits + 0x1000) & ~0x1fffu;
}

}  // namespace rnnfast::emulator
