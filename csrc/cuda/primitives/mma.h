// SPDX-License-Identifier: Apache-2.0
// Tensor cores: C[16, 8] += A[16, K] B[K, 8] by the 32 lanes of a warp, accumulated in float. Fragments are as PTX
// documents them for mma.m16n8kK (row A, column B). With g = lane / 4 and q = lane % 4:
//
//   C   value 0, 1: row g,     columns 2q, 2q + 1;   value 2, 3: row g + 8
//   A, 16-bit, K = 16: word 0: row g, k = 2q, 2q + 1; word 1: row g + 8; words 2, 3: the same rows, k + 8
//   A, 16-bit, K = 8:  word 0: row g, k = 2q, 2q + 1; word 1: row g + 8
//   B, 16-bit, K = 16: word 0: column g, k = 2q, 2q + 1; word 1: k + 8;    K = 8: word 0 alone
//   A, tf32, K = 8: word 0: row g, k = q; word 1: row g + 8; word 2: row g, k = q + 4; word 3: row g + 8, k = q + 4
//   B, tf32, K = 8: word 0: column g, k = q; word 1: k = q + 4
//
// 16-bit, K = 16 and tf32: sm_80 and newer; half, K = 8: sm_75 and newer.
#pragma once

#include "cuda/primitives/memory.h"

namespace RNNFAST_NAMESPACE {

struct Tf32 {};  // the name of float's own format; a float is rounded to it by to_tf32

template <class S, int K>
struct FragmentA {
  static constexpr int kWords = sizeof(S) == 2 ? K / 4 : 4;
  uint32_t word[kWords];
};
template <int K>
struct FragmentA<Tf32, K> {
  static constexpr int kWords = K / 2;
  uint32_t word[kWords];
};
template <class S, int K>
struct FragmentB {
  static constexpr int kWords = K / 8;
  uint32_t word[kWords];
};
template <int K>
struct FragmentB<Tf32, K> {
  static constexpr int kWords = K / 4;
  uint32_t word[kWords];
};
struct FragmentC {
  float value[4];
};

#if defined(__CUDACC__)

RNNFAST_DEVICE uint32_t to_tf32(float x) {
  uint32_t bits;
#if __CUDA_ARCH__ >= 800
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(x));
#else
  bits = 0;
#endif
  return bits;
}

#define RNNFAST_MMA_16816(type)                                                         \
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32." type "." type                   \
               ".f32 "                                                                  \
               "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"                  \
               : "+f"(c.value[0]), "+f"(c.value[1]), "+f"(c.value[2]), "+f"(c.value[3]) \
               : "r"(a.word[0]), "r"(a.word[1]), "r"(a.word[2]), "r"(a.word[3]), "r"(b.word[0]), "r"(b.word[1]))

#define RNNFAST_MMA_1688(a0, a1, b0)                                           \
  asm volatile(                                                                \
      "mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 "                      \
      "{%0,%1,%2,%3}, {%4,%5}, {%6}, {%0,%1,%2,%3};"                           \
      : "+f"(c.value[0]), "+f"(c.value[1]), "+f"(c.value[2]), "+f"(c.value[3]) \
      : "r"(a0), "r"(a1), "r"(b0))

// All lanes of the warp. Where the architecture lacks the instruction (the plan does not ask for it there) the
// kernel traps; half, K = 16 is two of K = 8 on sm_75.
RNNFAST_DEVICE void mma(FragmentC& c, const FragmentA<Half, 16>& a, const FragmentB<Half, 16>& b) {
#if __CUDA_ARCH__ >= 800
  RNNFAST_MMA_16816("f16");
#elif __CUDA_ARCH__ >= 750
  RNNFAST_MMA_1688(a.word[0], a.word[1], b.word[0]);
  RNNFAST_MMA_1688(a.word[2], a.word[3], b.word[1]);
#else
  __trap();
#endif
}
RNNFAST_DEVICE void mma(FragmentC& c, const FragmentA<BFloat16, 16>& a, const FragmentB<BFloat16, 16>& b) {
#if __CUDA_ARCH__ >= 800
  RNNFAST_MMA_16816("bf16");
#else
  __trap();
#endif
}
RNNFAST_DEVICE void mma(FragmentC& c, const FragmentA<Half, 8>& a, const FragmentB<Half, 8>& b) {
#if __CUDA_ARCH__ >= 750
  RNNFAST_MMA_1688(a.word[0], a.word[1], b.word[0]);
#else
  __trap();
#endif
}
#undef RNNFAST_MMA_16816
#undef RNNFAST_MMA_1688
RNNFAST_DEVICE void mma(FragmentC& c, const FragmentA<Tf32, 8>& a, const FragmentB<Tf32, 8>& b) {
#if __CUDA_ARCH__ >= 800
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(c.value[0]), "+f"(c.value[1]), "+f"(c.value[2]), "+f"(c.value[3])
      : "r"(a.word[0]), "r"(a.word[1]), "r"(a.word[2]), "r"(a.word[3]), "r"(b.word[0]), "r"(b.word[1]));
#else
  __trap();
#endif
}

// ldmatrix: four 8 x 8 matrices of 16-bit values; lane l names row l % 8 of matrix l / 8, which begins at index i
// (a multiple of 8). Word m of a lane: row lane / 4 of matrix m, columns 2 (lane % 4) and the next. All lanes.
template <class S>
RNNFAST_DEVICE void load_matrices(uint32_t (&word)[4], SharedView<S> view, int i) {
  static_assert(sizeof(S) == 2, "16-bit values");
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(word[0]), "=r"(word[1]), "=r"(word[2]), "=r"(word[3])
               : "r"(view.address(i))
               : "memory");
}

#else

inline uint32_t to_tf32(float x) { return emulator::to_tf32(x); }
inline void mma(FragmentC& c, const FragmentA<Half, 16>& a, const FragmentB<Half, 16>& b) {
  emulator::mma<emulator::Half, 16>(c.value, a.word, b.word);
}
inline void mma(FragmentC& c, const FragmentA<BFloat16, 16>& a, const FragmentB<BFloat16, 16>& b) {
  emulator::mma<emulator::BFloat16, 16>(c.value, a.word, b.word);
}
inline void mma(FragmentC& c, const FragmentA<Half, 8>& a, const FragmentB<Half, 8>& b) {
  emulator::mma<emulator::Half, 8>(c.value, a.word, b.word);
}
inline void mma(FragmentC& c, const FragmentA<Tf32, 8>& a, const FragmentB<Tf32, 8>& b) {
  emulator::mma<emulator::Tf32, 8>(c.value, a.word, b.word);
}
template <class S>
void load_matrices(uint32_t (&word)[4], SharedView<S> view, int i) {
  emulator::load_matrices(word, view, i);
}

#endif

// Two neighbouring 16-bit values as a word of a fragment.
template <class S>
RNNFAST_DEVICE uint32_t fragment_word(S low, S high) {
  static_assert(sizeof(S) == 2, "16-bit values");
  uint16_t bits[2];
  __builtin_memcpy(&bits[0], &low, 2);
  __builtin_memcpy(&bits[1], &high, 2);
  return bits[0] | static_cast<uint32_t>(bits[1]) << 16;
}

}  // namespace RNNFAST_NAMESPACE
