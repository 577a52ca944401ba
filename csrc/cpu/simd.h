// SPDX-License-Identifier: Apache-2.0
// Vec<T, N>: N lanes of T on the compiler's vector types, with the primitive names of core/scalar.h.
// The same source becomes AVX-512, AVX2, SSE2 or NEON code by the target it is compiled for. A vector wider than
// the target's registers is lowered to several registers, which is how the AVX-512 shape is tested on AVX2.
#pragma once

#include "core/scalar.h"

namespace RNNFAST_NAMESPACE {

template <class T, int N>
struct Vec {
  typedef T Raw __attribute__((vector_size(N * sizeof(T))));
  typedef typename FloatFormat<T>::Int Int;
  typedef Int Mask __attribute__((vector_size(N * sizeof(T))));
  using Scalar = T;
  static constexpr int kLanes = N;

  Raw v;

  friend RNNFAST_INLINE Vec operator+(Vec a, Vec b) { return {a.v + b.v}; }
  friend RNNFAST_INLINE Vec operator-(Vec a, Vec b) { return {a.v - b.v}; }
  friend RNNFAST_INLINE Vec operator*(Vec a, Vec b) { return {a.v * b.v}; }
  friend RNNFAST_INLINE Vec operator/(Vec a, Vec b) { return {a.v / b.v}; }
  friend RNNFAST_INLINE Vec operator-(Vec a) { return {-a.v}; }
  friend RNNFAST_INLINE Mask less(Vec a, Vec b) { return a.v < b.v; }
  friend RNNFAST_INLINE Vec select(Mask c, Vec a, Vec b) { return {c ? a.v : b.v}; }
  friend RNNFAST_INLINE Vec absolute(Vec a) {
    const Mask sign = (Mask{} + 1) << (8 * sizeof(T) - 1);
    return {(Raw)((Mask)a.v & ~sign)};
  }
  friend RNNFAST_INLINE Vec exponent_of_two(Vec n) {
    const Raw shifted = n.v + (FloatFormat<T>::kRound + FloatFormat<T>::kExponentBias);
    return {(Raw)((Mask)shifted << FloatFormat<T>::kMantissaBits)};
  }
};

template <class T, int N>
struct ValueTraits<Vec<T, N>> {
  using Scalar = T;
  // x - 0 is x whatever x is (x + 0 is not, for -0), so that compilers leave nothing of it but the broadcast.
  static RNNFAST_INLINE Vec<T, N> constant(T x) { return {x - typename Vec<T, N>::Raw{}}; }
};

template <class V>
RNNFAST_INLINE V splat(typename V::Scalar x) {
  return ValueTraits<V>::constant(x);
}

// a * b + c in one rounding where the target has FMA (the build asks for -ffp-contract=fast).
template <class V>
RNNFAST_INLINE V fma(V a, V b, V c) {
  return {a.v * b.v + c.v};
}

template <class V>
RNNFAST_INLINE V load(const typename V::Scalar* p) {
  typedef typename V::Raw Unaligned __attribute__((aligned(sizeof(typename V::Scalar)), may_alias));
  return {*reinterpret_cast<const Unaligned*>(p)};
}

template <class V>
RNNFAST_INLINE void store(typename V::Scalar* p, V x) {
  typedef typename V::Raw Unaligned __attribute__((aligned(sizeof(typename V::Scalar)), may_alias));
  *reinterpret_cast<Unaligned*>(p) = x.v;
}

// The first n lanes (n may be kLanes); the others read as zero and are not written.
template <class V>
RNNFAST_INLINE V load_first(const typename V::Scalar* p, int n) {
  if (__builtin_expect(n == V::kLanes, 1)) return load<V>(p);
  alignas(64) typename V::Scalar lanes[V::kLanes] = {};
  for (int i = 0; i < n; ++i) lanes[i] = p[i];
  return load<V>(lanes);
}

template <class V>
RNNFAST_INLINE void store_first(typename V::Scalar* p, V x, int n) {
  if (__builtin_expect(n == V::kLanes, 1)) return store<V>(p, x);
  alignas(64) typename V::Scalar lanes[V::kLanes];
  store<V>(lanes, x);
  for (int i = 0; i < n; ++i) p[i] = lanes[i];
}

#if defined(__clang__)
constexpr bool kRegisterShuffles = false;
#else
constexpr bool kRegisterShuffles = true;
#endif

// Lane l of the result is lane index[l] of a followed by b. Only where kRegisterShuffles.
template <class V>
RNNFAST_INLINE V shuffle(V a, V b, typename V::Mask index) {
#if defined(__clang__)
  (void)index;
  (void)b;
  return a;
#else
  return {__builtin_shuffle(a.v, b.v, index)};
#endif
}

// Sums in a fixed order: halves onto halves.
template <class V>
RNNFAST_INLINE typename V::Scalar sum_lanes(V x) {
  if constexpr (!kRegisterShuffles) {
    alignas(64) typename V::Scalar lanes[V::kLanes];
    store(lanes, x);
    for (int width = V::kLanes / 2; width > 0; width /= 2)
      for (int l = 0; l < width; ++l) lanes[l] += lanes[l + width];
    return lanes[0];
  }
#pragma GCC unroll 4
  for (int width = V::kLanes / 2; width > 0; width /= 2) {
    typename V::Mask index = {};
#pragma GCC unroll 16
    for (int l = 0; l < V::kLanes; ++l) index[l] = (l + width) % V::kLanes;
    x = x + shuffle(x, x, index);
  }
  return x.v[0];
}

// In place: rows[i][j] becomes rows[j][i]. Swaps blocks of 1, 2, 4, ... lanes.
template <class V>
RNNFAST_INLINE void transpose(V (&rows)[V::kLanes]) {
#pragma GCC unroll 4
  for (int d = 1; d < V::kLanes; d *= 2) {
    typename V::Mask low = {}, high = {};
#pragma GCC unroll 16
    for (int l = 0; l < V::kLanes; ++l) {
      low[l] = (l & d) ? V::kLanes + l - d : l;
      high[l] = (l & d) ? V::kLanes + l : l + d;
    }
#pragma GCC unroll 16
    for (int i = 0; i < V::kLanes; ++i) {
      if (i & d) continue;
      const V a = rows[i], b = rows[i + d];
      rows[i] = shuffle(a, b, low);
      rows[i + d] = shuffle(a, b, high);
    }
  }
}

}  // namespace RNNFAST_NAMESPACE
