// SPDX-License-Identifier: Apache-2.0
// Included by a target's own file between its pragmas. Tails stand at the edges of accessible memory: a masked
// access is invisible to an address sanitizer, a fault is not.
#pragma once

#include "core/activations.h"
#include "cpu/simd.h"

namespace RNNFAST_NAMESPACE {

template <class T>
struct SimdChecks {
  using V = Vec<T, RNNFAST_VECTOR_BYTES / int(sizeof(T))>;
  static constexpr int N = V::kLanes;

  const char* target;
  T* page_start;
  T* page_end;
  int wrong = 0;

  void expect(bool right, const char* what, int n, int lane) {
    if (right) return;
    ++wrong;
    std::printf("%s, %s: %s, n=%d, lane %d\n", target, sizeof(T) == 4 ? "float" : "double", what, n, lane);
  }

  static bool same_bits(T a, T b) { return __builtin_memcmp(&a, &b, sizeof(T)) == 0; }

  // n lanes that end, and n that begin, at inaccessible memory; what lies on the other side must stay.
  void tails() {
    for (int n = 0; n <= N; ++n)
      for (T* const p : {page_end - n, page_start}) {
        const T outside = T(-77);
        T* const other = p == page_start ? p + n : p - 1;
        for (int l = 0; l < n; ++l) p[l] = T(l + 1);
        *other = outside;
        T got[N];
        for (T& e : got) e = T(-1);
        store(got, load_first<V>(p, n));
        for (int l = 0; l < N; ++l) expect(same_bits(got[l], l < n ? T(l + 1) : T(0)), "load_first", n, l);
        for (T& e : got) e = T(100 + (&e - got));
        store_first(p, load<V>(got), n);
        for (int l = 0; l < n; ++l) expect(p[l] == T(100 + l), "store_first", n, l);
        expect(*other == outside, "store_first wrote beyond its lanes", n, n);
      }
  }

  void lanes() {
    T numbers[2 * N], got[N];
    for (int l = 0; l < 2 * N; ++l) numbers[l] = T(l + 1);
    const V a = load<V>(numbers), b = load<V>(numbers + N);
    expect(sum_lanes(a) == T(N * (N + 1) / 2), "sum_lanes", N, 0);
    // The order is fixed: halves onto halves.
    T thirds[N];
    for (int l = 0; l < N; ++l) got[l] = thirds[l] = T(1) / T(3 * l + 1);
    for (int width = N / 2; width > 0; width /= 2)
      for (int l = 0; l < width; ++l) thirds[l] += thirds[l + width];
    expect(same_bits(sum_lanes(load<V>(got)), thirds[0]), "order of sum_lanes", N, 0);
    store(got, shuffle<Rotated<2 * N, 3>>(a, b));
    for (int l = 0; l < N; ++l) expect(got[l] == T((l + 3) % (2 * N) + 1), "shuffle", N, l);
    store(got, splat<V>(T(-0.0)));
    for (int l = 0; l < N; ++l) expect(same_bits(got[l], T(-0.0)), "splat of -0", N, l);
    V rows[N];
    for (int i = 0; i < N; ++i) {
      for (int j = 0; j < N; ++j) got[j] = T(100 * i + j);
      rows[i] = load<V>(got);
    }
    transpose(rows);
    for (int i = 0; i < N; ++i) {
      store(got, rows[i]);
      for (int j = 0; j < N; ++j) expect(got[j] == T(100 * j + i), "transpose", i, j);
    }
  }

  void values() {
    const T inf = T(__builtin_inf()), nan = T(__builtin_nan(""));
    const T special[] = {T(0), T(-0.0), T(1), T(-1), inf, -inf, nan, -nan, FloatFormat<T>::kRound, T(1e-38)};
    T left[N], right[N], got[N];
    for (const T x : special)
      for (const T y : special) {
        // The pair in even lanes, the reverse in odd ones.
        for (int l = 0; l < N; ++l) left[l] = l % 2 ? y : x, right[l] = l % 2 ? x : y;
        const V a = load<V>(left), b = load<V>(right);
        store(got, select(less(a, b), a, b));
        for (int l = 0; l < N; ++l)
          expect(same_bits(got[l], left[l] < right[l] ? left[l] : right[l]), "select(less)", N, l);
        store(got, absolute(a));
        for (int l = 0; l < N; ++l)
          expect(
              same_bits(got[l], sizeof(T) == 4 ? T(__builtin_fabsf(float(left[l]))) : T(__builtin_fabs(left[l]))),
              "absolute", N, l);
      }
    const int most = sizeof(T) == 4 ? 126 : 1022;
    for (int e = -most; e <= most; e += N) {
      for (int l = 0; l < N; ++l) left[l] = T(e + l < most ? e + l : most);
      store(got, exponent_of_two(load<V>(left)));
      for (int l = 0; l < N; ++l) expect(got[l] == T(__builtin_ldexp(1.0, int(left[l]))), "exponent_of_two", e, l);
    }
    const V one = splat<V>(T(1)), nans = splat<V>(nan);
    const V results[] = {exp(nans), tanh(nans), sigmoid(nans), one + nans};
    for (const V& result : results) {
      store(got, result);
      for (int l = 0; l < N; ++l) expect(got[l] != got[l], "NaN in, NaN out", N, l);
    }
  }

  int run() {
    tails();
    lanes();
    values();
    return wrong;
  }
};

inline int simd_checks(const char* target, void* page_start, void* page_end) {
  SimdChecks<float> single{target, static_cast<float*>(page_start), static_cast<float*>(page_end)};
  SimdChecks<double> twice{target, static_cast<double*>(page_start), static_cast<double*>(page_end)};
  return single.run() + twice.run();
}

}  // namespace RNNFAST_NAMESPACE
