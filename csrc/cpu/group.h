// SPDX-License-Identifier: Apache-2.0
// Several vectors as one value, for pointwise mathematics in step: the chain of operations for one vector (exp,
// division, tanh on top) is some 150 cycles of latency, and longer than what a processor looks ahead. (A vector of
// twice the lanes would say the same, but compilers lower its comparisons and selections through memory.)
#pragma once

#include "cpu/simd.h"

namespace RNNFAST_NAMESPACE {

template <class V, int K>
struct Group {
  struct Mask {
    typename V::Mask m[K];
  };
  using Scalar = typename V::Scalar;
  static constexpr int kLanes = K * V::kLanes;
  V v[K];

  // f(v[k]...) for each k.
  template <class F, class... Groups>
  static RNNFAST_INLINE Group each(F f, const Groups&... groups) {
    Group r;
#pragma GCC unroll 8
    for (int k = 0; k < K; ++k) r.v[k] = f(groups.v[k]...);
    return r;
  }
  friend RNNFAST_INLINE Group operator+(const Group& a, const Group& b) {
    return each([](V x, V y) { return x + y; }, a, b);
  }
  friend RNNFAST_INLINE Group operator-(const Group& a, const Group& b) {
    return each([](V x, V y) { return x - y; }, a, b);
  }
  friend RNNFAST_INLINE Group operator*(const Group& a, const Group& b) {
    return each([](V x, V y) { return x * y; }, a, b);
  }
  friend RNNFAST_INLINE Group operator/(const Group& a, const Group& b) {
    return each([](V x, V y) { return x / y; }, a, b);
  }
  friend RNNFAST_INLINE Group absolute(const Group& a) {
    return each([](V x) { return absolute(x); }, a);
  }
  friend RNNFAST_INLINE Group exponent_of_two(const Group& a) {
    return each([](V x) { return exponent_of_two(x); }, a);
  }
  friend RNNFAST_INLINE Mask less(const Group& a, const Group& b) {
    Mask r;
#pragma GCC unroll 8
    for (int k = 0; k < K; ++k) r.m[k] = less(a.v[k], b.v[k]);
    return r;
  }
  friend RNNFAST_INLINE Group select(const Mask& c, const Group& a, const Group& b) {
    Group r;
#pragma GCC unroll 8
    for (int k = 0; k < K; ++k) r.v[k] = select(c.m[k], a.v[k], b.v[k]);
    return r;
  }

  // Of neighbours in memory: the first n elements, as load_first and store_first.
  static RNNFAST_INLINE Group load_first(const Scalar* p, int n) {
    Group r;
#pragma GCC unroll 8
    for (int k = 0; k < K; ++k) r.v[k] = RNNFAST_NAMESPACE::load_first<V>(p + k * V::kLanes, lanes_of(k, n));
    return r;
  }
  RNNFAST_INLINE void store_first(Scalar* p, int n) const {
#pragma GCC unroll 8
    for (int k = 0; k < K; ++k) RNNFAST_NAMESPACE::store_first(p + k * V::kLanes, v[k], lanes_of(k, n));
  }

 private:
  static RNNFAST_INLINE int lanes_of(int k, int n) {
    const int left = n - k * V::kLanes;
    return left < 0 ? 0 : left < V::kLanes ? left : V::kLanes;
  }
};

template <class V, int K>
struct ValueTraits<Group<V, K>> {
  using Scalar = typename V::Scalar;
  static RNNFAST_INLINE Group<V, K> constant(Scalar x) {
    Group<V, K> r;
#pragma GCC unroll 8
    for (int k = 0; k < K; ++k) r.v[k] = ValueTraits<V>::constant(x);
    return r;
  }
};

// A value of K vectors (K = 1: a plain one) from and to memory.
template <class V>
struct InMemory {
  static RNNFAST_INLINE V load(const typename V::Scalar* p, int n) { return load_first<V>(p, n); }
  static RNNFAST_INLINE void store(typename V::Scalar* p, V x, int n) { store_first(p, x, n); }
};

template <class V, int K>
struct InMemory<Group<V, K>> {
  using G = Group<V, K>;
  static RNNFAST_INLINE G load(const typename V::Scalar* p, int n) { return G::load_first(p, n); }
  static RNNFAST_INLINE void store(typename V::Scalar* p, const G& x, int n) { x.store_first(p, n); }
};

}  // namespace RNNFAST_NAMESPACE
