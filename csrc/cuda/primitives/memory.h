// SPDX-License-Identifier: Apache-2.0
// Memory that threads share: views through which every access goes, so that the emulator sees it (bounds, races).
//
// SharedView: shared memory of a block. ExchangeView: global memory through which blocks of one launch exchange
// values between two grid barriers; it is read (load_words) and written in L2, since L1 may hold what another block
// has replaced. What only one thread touches in a launch, or nobody writes, kernels read through plain pointers.
#pragma once

#include "cuda/primitives/types.h"

namespace RNNFAST_NAMESPACE {

#if defined(__CUDACC__)

template <class T>
class SharedView {
 public:
  RNNFAST_DEVICE SharedView(T* data, int) : data_(data) {}
  RNNFAST_DEVICE T load(int i) const { return data_[i]; }
  RNNFAST_DEVICE void store(int i, T x) const { data_[i] = x; }
  // N values from i on; i a multiple of N.
  template <int N>
  RNNFAST_DEVICE Pack<T, N> load_pack(int i) const {
    return *reinterpret_cast<const Pack<T, N>*>(data_ + i);
  }
  template <int N>
  RNNFAST_DEVICE void store_pack(int i, Pack<T, N> x) const {
    *reinterpret_cast<Pack<T, N>*>(data_ + i) = x;
  }
  RNNFAST_DEVICE SharedView part(int first, int count) const { return {data_ + first, count}; }
  // For primitives/mma.h: the address as ldmatrix wants it.
  RNNFAST_DEVICE unsigned address(int i) const {
    return static_cast<unsigned>(__cvta_generic_to_shared(data_ + i));
  }

 private:
  T* data_;
};

// `count` values of the launch's dynamic shared memory, from `byte_offset` (a multiple of 16) on.
template <class T>
RNNFAST_DEVICE SharedView<T> dynamic_shared(int byte_offset, int count) {
  extern __shared__ __align__(16) unsigned char rnnfast_dynamic_shared[];
  return {reinterpret_cast<T*>(rnnfast_dynamic_shared + byte_offset), count};
}

// Declares `name`, a SharedView<T> of N values in static shared memory.
#define RNNFAST_SHARED(T, name, N) \
  __shared__ T name##_storage_[N]; \
  const SharedView<T> name(name##_storage_, N)

template <class T>
class ExchangeView {
 public:
  RNNFAST_DEVICE ExchangeView(T* data, int64_t) : data_(data) {}
  RNNFAST_DEVICE void store(int64_t i, T x) const { __stcg(data_ + i, x); }
  RNNFAST_DEVICE ExchangeView part(int64_t first, int64_t count) const { return {data_ + first, count}; }
  // For load_words.
  RNNFAST_DEVICE const uint4* words(int64_t i) const { return reinterpret_cast<const uint4*>(data_ + i); }

 private:
  T* data_;
};

// 16 bytes from value i on, as they are; the address a multiple of 16. Values of 16 bits are best unpacked at their
// use: the compiler would keep each in a register of its own, and wait for the load to take it apart. Of CUDA's
// cached loads those of half types are not volatile, so that the compiler might move them over a barrier; this one
// is.
template <class T>
RNNFAST_DEVICE Pack<uint32_t, 4> load_words(const ExchangeView<T>& view, int64_t i) {
  const uint4 raw = __ldcg(view.words(i));
  return {{raw.x, raw.y, raw.z, raw.w}};
}

// Asks for the cache line of p, which a later step will read.
RNNFAST_DEVICE void prefetch_global(const void* p) { asm volatile("prefetch.global.L2 [%0];" ::"l"(p)); }

#else  // the same names; every access is checked

template <class T>
using SharedView = emulator::SharedView<T>;
template <class T>
using ExchangeView = emulator::ExchangeView<T>;

template <class T>
SharedView<T> dynamic_shared(int byte_offset, int count) {
  return emulator::dynamic_shared<T>(byte_offset, count);
}

// The static's address tells the arrays of one block apart, in each instantiation of the kernel.
#define RNNFAST_SHARED(T, name, N)       \
  static const char name##_storage_ = 0; \
  const SharedView<T> name = ::rnnfast::emulator::static_shared<T>(&name##_storage_, N)

template <class T>
Pack<uint32_t, 4> load_words(const ExchangeView<T>& view, int64_t i) {
  const auto pack = view.template load_pack<16 / static_cast<int>(sizeof(T))>(i);
  Pack<uint32_t, 4> words;
  __builtin_memcpy(&words, &pack, 16);
  return words;
}

inline void prefetch_global(const void*) {}

#endif

}  // namespace RNNFAST_NAMESPACE
