// SPDX-License-Identifier: Apache-2.0
// Vec<T, N>: N lanes of T on the compiler's vector types, with the primitive names of core/scalar.h.
// The same source becomes AVX-512, AVX2, SSE2 or NEON code by the target it is compiled for. A vector wider than
// the target's registers is lowered to several registers, which is how the AVX-512 shape is tested on AVX2.
// RNNFAST_MASKS, defined by a target: 256 (AVX2) or 512 (AVX-512) where it can mask loads; tails use that.
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

// Lanes of a tail, 0 <= n < kLanes, n known at run time only. No byte beyond lane n - 1 is read or written.
#if RNNFAST_MASKS == 512
template <class V>
RNNFAST_INLINE V load_tail(const typename V::Scalar* p, int n) {
  if constexpr (V::kLanes == 16) {
    return {(typename V::Raw)_mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), p)};
  } else {
    return {(typename V::Raw)_mm512_maskz_loadu_pd((__mmask8)((1u << n) - 1), p)};
  }
}

template <class V>
RNNFAST_INLINE void store_tail(typename V::Scalar* p, V x, int n) {
  if constexpr (V::kLanes == 16) {
    _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1), (__m512)x.v);
  } else {
    _mm512_mask_storeu_pd(p, (__mmask8)((1u << n) - 1), (__m512d)x.v);
  }
}
#else
#if RNNFAST_MASKS == 256
// The mask of some lanes is loaded anew by each tail: kept in a register, it (or a constant to compare with) could
// push an accumulator out of a product's loop, which has no register to spare.
alignas(64) constexpr int32_t kMaskOfLanes[16] = {-1, -1, -1, -1, -1, -1, -1, -1};

RNNFAST_INLINE __m256i mask_of_bytes(int bytes) {
  asm volatile("" : "+r"(bytes));
  return _mm256_loadu_si256(
      reinterpret_cast<const __m256i*>(reinterpret_cast<const char*>(kMaskOfLanes) + 32 - bytes));
}

RNNFAST_INLINE __m256 load_tail_256(const float* p, int n) { return _mm256_maskload_ps(p, mask_of_bytes(4 * n)); }

RNNFAST_INLINE __m256d load_tail_256(const double* p, int n) { return _mm256_maskload_pd(p, mask_of_bytes(8 * n)); }

// One register of 32 bytes, or two where the AVX-512 shape is lowered to AVX2.
template <class V>
RNNFAST_INLINE V load_tail(const typename V::Scalar* p, int n) {
  if constexpr (sizeof(V) == 32) {
    return {(typename V::Raw)load_tail_256(p, n)};
  } else {
    constexpr int kHalf = V::kLanes / 2;
    const int low = n < kHalf ? n : kHalf;
    const decltype(load_tail_256(p, n)) halves[2] = {load_tail_256(p, low), load_tail_256(p + low, n - low)};
    V x;
    __builtin_memcpy(&x, halves, sizeof x);
    return x;
  }
}
#else
template <class V>
RNNFAST_INLINE V load_tail(const typename V::Scalar* p, int n) {
  alignas(64) typename V::Scalar lanes[V::kLanes] = {};
  for (int i = 0; i < n; ++i) lanes[i] = p[i];
  return load<V>(lanes);
}
#endif

// By lane on AVX2 too: AMD's processors take dozens of operations for a masked store, and with anything shorter
// than this loop (masked, or halves of halves) GCC 12 keeps accumulators of the scan's product in memory, for a
// third of its speed. What costs is the load: lanes just written one by one cannot be forwarded to it as a vector.
template <class V>
RNNFAST_INLINE void store_tail(typename V::Scalar* p, V x, int n) {
  alignas(64) typename V::Scalar lanes[V::kLanes];
  store<V>(lanes, x);
  for (int i = 0; i < n; ++i) p[i] = lanes[i];
}
#endif

// Masked accesses are invisible to GCC's address sanitizer, so it is asked.
#if defined(__SANITIZE_ADDRESS__) && RNNFAST_MASKS
extern "C" void __asan_loadN(void*, size_t);
extern "C" void __asan_storeN(void*, size_t);
#define RNNFAST_ASAN(access, p, n) access(const_cast<typename V::Scalar*>(p), size_t(n) * sizeof *(p))
#else
#define RNNFAST_ASAN(access, p, n) (void)0
#endif

// The first n lanes (n may be kLanes); the others read as zero and are not written.
template <class V>
RNNFAST_INLINE V load_first(const typename V::Scalar* p, int n) {
  if (__builtin_expect(n == V::kLanes, 1)) return load<V>(p);
  RNNFAST_ASAN(__asan_loadN, p, n);
  return load_tail<V>(p, n);
}

template <class V>
RNNFAST_INLINE void store_first(typename V::Scalar* p, V x, int n) {
  if (__builtin_expect(n == V::kLanes, 1)) return store<V>(p, x);
  RNNFAST_ASAN(__asan_storeN, p, n);
  store_tail<V>(p, x, n);
}
#undef RNNFAST_ASAN

// Lane l of the result is lane Pick::at(l) of a followed by b; the lanes are known to the compiler.
template <class Pick, class V, int... kLane>
RNNFAST_INLINE V shuffle(V a, V b, std::integer_sequence<int, kLane...>) {
#if defined(__clang__)
  return {__builtin_shufflevector(a.v, b.v, Pick::at(kLane)...)};
#else
  return {__builtin_shuffle(a.v, b.v, typename V::Mask{Pick::at(kLane)...})};
#endif
}

template <class Pick, class V>
RNNFAST_INLINE V shuffle(V a, V b) {
  return shuffle<Pick>(a, b, std::make_integer_sequence<int, V::kLanes>{});
}

template <int kLanes, int kBy>
struct Rotated {
  static constexpr int at(int l) { return (l + kBy) % kLanes; }
};

// Sums in a fixed order: halves onto halves.
template <class V, int kWidth = V::kLanes / 2>
RNNFAST_INLINE typename V::Scalar sum_lanes(V x) {
  if constexpr (kWidth == 0) {
    return x.v[0];
  } else {
    return sum_lanes<V, kWidth / 2>(x + shuffle<Rotated<V::kLanes, kWidth>>(x, x));
  }
}

// The blocks of D lanes of two rows that a transposition leaves in the upper one, and in the lower.
template <int kLanes, int D>
struct UpperBlocks {
  static constexpr int at(int l) { return (l & D) ? kLanes + l - D : l; }
};
template <int kLanes, int D>
struct LowerBlocks {
  static constexpr int at(int l) { return (l & D) ? kLanes + l : l + D; }
};

// In place: rows[i][j] becomes rows[j][i]. Swaps blocks of 1, 2, 4, ... lanes.
template <int D = 1, class V, int kRows>
RNNFAST_INLINE void transpose(V (&rows)[kRows]) {
  static_assert(kRows == V::kLanes);
#pragma GCC unroll 16
  for (int i = 0; i < kRows; ++i) {
    if (i & D) continue;
    const V a = rows[i], b = rows[i + D];
    rows[i] = shuffle<UpperBlocks<kRows, D>>(a, b);
    rows[i + D] = shuffle<LowerBlocks<kRows, D>>(a, b);
  }
  if constexpr (2 * D < kRows) transpose<2 * D>(rows);
}

}  // namespace RNNFAST_NAMESPACE
