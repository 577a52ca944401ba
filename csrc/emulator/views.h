// SPDX-License-Identifier: Apache-2.0
// The views through which kernels reach memory that threads share (primitives/memory.h). Every access is checked
// for bounds and alignment before memory is touched, and for races.
#pragma once

#include <cstdint>

#include "emulator/thread.h"

namespace rnnfast::emulated {
template <class T, int N>
struct Pack;  // primitives/types.h
}

namespace rnnfast::emulator {

enum class Access { kRead, kWrite };
enum class Memory { kShared, kExchange };

// The race check (and, for shared memory, that what is read was written). bytes: 1 to 16, a power of two, of which
// p is a multiple; index, count: of the view, for the report.
void check_access(Memory memory, Access access, const void* p, int bytes, int64_t index, int64_t count);
// Fails with a report of where `index` (of `count` values) lies.
[[noreturn]] void fail_bounds(Memory memory, const char* operation, int64_t index, int values, int64_t count);
[[noreturn]] void fail_alignment(Memory memory, const char* operation, const void* p, int64_t index, int bytes);
[[noreturn]] void fail_part(Memory memory, int64_t first, int64_t part, int64_t count);

void* dynamic_shared_bytes(int byte_offset, int64_t bytes, int alignment);
void* static_shared_bytes(const void* key, int64_t bytes);

namespace types {

template <class T, Memory kMemory, class Index>
class CheckedView {
 public:
  CheckedView(T* data, Index count) : data_(data), count_(count) {}

  T load(Index i) const {
    check<sizeof(T)>(Access::kRead, "load", i, 1);
    return data_[i];
  }
  void store(Index i, T x) const {
    check<sizeof(T)>(Access::kWrite, "store", i, 1);
    data_[i] = x;
  }
  template <int N>
  emulated::Pack<T, N> load_pack(Index i) const {
    check<sizeof(T) * N>(Access::kRead, "load_pack", i, N);
    emulated::Pack<T, N> result;
    __builtin_memcpy(&result, data_ + i, sizeof(result));
    return result;
  }
  template <int N>
  void store_pack(Index i, emulated::Pack<T, N> x) const {
    check<sizeof(T) * N>(Access::kWrite, "store_pack", i, N);
    __builtin_memcpy(static_cast<void*>(data_ + i), &x, sizeof(x));
  }
  CheckedView part(Index first, Index count) const {
    if (first < 0 || count < 0 || first > count_ - count) fail_part(kMemory, first, count, count_);
    return {data_ + first, count};
  }
  // Where ldmatrix may read 8 values.
  const T* matrix_row(Index i) const {
    check_place<16>("load_matrices", i, 8);
    return data_ + i;
  }

 private:
  template <int kBytes>
  void check_place(const char* operation, Index i, int values) const {
    if (i < 0 || i > count_ - values) fail_bounds(kMemory, operation, i, values, count_);
    if (reinterpret_cast<uintptr_t>(data_ + i) % kBytes != 0)
      fail_alignment(kMemory, operation, data_ + i, i, kBytes);
  }
  template <int kBytes>
  void check(Access access, const char* operation, Index i, int values) const {
    check_place<kBytes>(operation, i, values);
    check_access(kMemory, access, data_ + i, kBytes, i, count_);
  }

  T* data_;
  Index count_;
};

}  // namespace types

template <class T>
using SharedView = types::CheckedView<T, Memory::kShared, int>;
template <class T>
using ExchangeView = types::CheckedView<T, Memory::kExchange, int64_t>;

template <class T>
SharedView<T> dynamic_shared(int byte_offset, int count) {
  const int64_t bytes = static_cast<int64_t>(count) * static_cast<int64_t>(sizeof(T));
  return {static_cast<T*>(dynamic_shared_bytes(byte_offset, bytes, 16)), count};
}
template <class T>
SharedView<T> static_shared(const void* key, int count) {
  const int64_t bytes = static_cast<int64_t>(count) * static_cast<int64_t>(sizeof(T));
  return {static_cast<T*>(static_shared_bytes(key, bytes)), count};
}

}  // namespace rnnfast::emulator
