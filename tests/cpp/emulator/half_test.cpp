// SPDX-License-Identifier: Apache-2.0
// 16-bit types: every pattern, and conversions from float against the nearest of all values.
#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "run.h"

namespace RNNFAST_NAMESPACE {
namespace {

// The value of a pattern of 1 sign, `exponent_bits` and `mantissa_bits`, from the definition.
double value_of(uint32_t bits, int exponent_bits, int mantissa_bits) {
  const int bias = (1 << (exponent_bits - 1)) - 1, top = (1 << exponent_bits) - 1;
  const int exponent = static_cast<int>(bits >> mantissa_bits) & top;
  const double mantissa = std::ldexp(bits & ((1u << mantissa_bits) - 1), -mantissa_bits);
  const double sign = bits >> (exponent_bits + mantissa_bits) ? -1 : 1;
  if (exponent == top) return mantissa == 0 ? sign * std::numeric_limits<double>::infinity() : std::nan("");
  return sign * (exponent == 0 ? std::ldexp(mantissa, 1 - bias) : std::ldexp(1 + mantissa, exponent - bias));
}

template <class S>
struct Format;
template <>
struct Format<Half> {
  static constexpr int kExponent = 5, kMantissa = 10;
};
template <>
struct Format<BFloat16> {
  static constexpr int kExponent = 8, kMantissa = 7;
};

template <class S>
double exact(uint32_t bits) {
  return value_of(bits, Format<S>::kExponent, Format<S>::kMantissa);
}

// To nearest, ties to even, from the positive values in order. Infinity counts as the value that would come next.
template <class S>
uint16_t nearest(float x) {
  constexpr uint32_t kInfinity = ((1u << Format<S>::kExponent) - 1) << Format<S>::kMantissa;
  const uint32_t sign = std::signbit(x) ? 0x8000 : 0;
  const double magnitude = std::fabs(static_cast<double>(x));
  uint32_t low = 0, high = kInfinity;  // exact(low) <= magnitude < "exact"(high)
  if (std::isinf(x)) return static_cast<uint16_t>(sign | kInfinity);
  while (high - low > 1) {
    const uint32_t middle = (low + high) / 2;
    (exact<S>(middle) <= magnitude ? low : high) = middle;
  }
  const double below = exact<S>(low);
  const double above = high == kInfinity ? 2 * below - exact<S>(low - 1) : exact<S>(high);
  const double to_below = magnitude - below, to_above = above - magnitude;
  const bool up = to_above < to_below || (to_above == to_below && low % 2 == 1);
  return static_cast<uint16_t>(sign | (up ? high : low));
}

template <class S>
void check_patterns(const char* name) {
  for (uint32_t bits = 0; bits < 65536; ++bits) {
    const S s{static_cast<uint16_t>(bits)};
    const double expected = exact<S>(bits);
    const float x = widen(s);
    if (std::isnan(expected)) {
      CHECK(std::isnan(x) && narrow<S>(x).bits == 0x7fff, "%s %04x: %g", name, bits, double(x));
      continue;
    }
    CHECK(x == expected && std::signbit(x) == std::signbit(expected), "%s %04x: %g", name, bits, double(x));
    CHECK(narrow<S>(x).bits == bits, "%s %04x comes back as %04x", name, bits, narrow<S>(x).bits);
    if (bits & 0x7fff) {  // the floats around the middle between this value and the next towards zero
      const float middle = static_cast<float>((expected + exact<S>(bits - 1)) / 2);
      for (const float y : {middle, std::nextafter(middle, 0.0f), std::nextafter(middle, 2 * middle)})
        CHECK(narrow<S>(y).bits == nearest<S>(y), "%s of %a: %04x", name, double(y), narrow<S>(y).bits);
    }
  }
}

template <class S>
void check_floats(const char* name) {
  std::mt19937 random(7);
  for (int i = 0; i < 300000; ++i) {
    const float x = emulator::float_of(static_cast<uint32_t>(random()));
    if (!std::isnan(x))
      CHECK(narrow<S>(x).bits == nearest<S>(x), "%s of %a: %04x, seed 7", name, double(x), narrow<S>(x).bits);
  }
  for (const float x : {65504.0f, 65519.996f, 65520.0f, 65536.0f, 3.4028235e38f, 3.3895314e38f, 1e-45f, 0x1p-24f,
                        0x1p-25f, 0x1.000002p-25f, 0x1p-14f, 0x1.ffcp-15f, 0x1.ffep-15f, 0.0f})
    for (const float y : {x, -x})
      CHECK(narrow<S>(y).bits == nearest<S>(y), "%s of %a: %04x", name, double(y), narrow<S>(y).bits);
}

TEST(half_patterns) { check_patterns<Half>("half"); }
TEST(half_floats) { check_floats<Half>("half"); }
TEST(bfloat16_patterns) { check_patterns<BFloat16>("bfloat16"); }
TEST(bfloat16_floats) { check_floats<BFloat16>("bfloat16"); }

TEST(tf32_rounding) {
  const struct {
    float x, expected;
  } cases[] = {{1, 1},
               {0x1.001p0f, 0x1.004p0f * 0 + 1},  // below a half of the last place
               {0x1.002p0f, 0x1.004p0f},          // a half: away from zero
               {-0x1.002p0f, -0x1.004p0f},
               {0x1.006p0f, 0x1.008p0f},
               {0x1.ffep0f, 2},
               {0x1.fffffep127f, std::numeric_limits<float>::infinity()},
               {-0.0f, -0.0f}};
  for (const auto& c : cases) {
    const float got = emulator::float_of(emulator::round_to_tf32(emulator::bits_of(c.x)));
    CHECK(got == c.expected && std::signbit(got) == std::signbit(c.expected), "tf32 of %a: %a", double(c.x),
          double(got));
  }
}

}  // namespace
}  // namespace RNNFAST_NAMESPACE
