// SPDX-License-Identifier: Apache-2.0
// What the 32 lanes of a warp do together: each lane leaves its operands, the last to come lets all go on.
#pragma once

#include <cstdint>
#include <type_traits>

#include "emulator/half.h"
#include "emulator/views.h"

namespace rnnfast::emulator {

enum class Collective : int {
  kNone,
  kSyncWarp,
  kShuffle,
  kBallot,
  kMmaHalf16,
  kMmaBFloat16,
  kMmaHalf8,
  kMmaTf32,
  kLoadMatrices
};

struct alignas(8) Operands {
  uint32_t word[12];
};

// Leaves `mine`, waits for all lanes and returns theirs. They stay until the lane reaches its next collective.
const Operands* exchange(Collective collective, const Operands& mine);

template <class T>
T shuffle(T x, int source) {
  static_assert(std::is_trivially_copyable_v<T> && sizeof(T) <= 8, "what CUDA shuffles");
  Operands mine;
  __builtin_memcpy(mine.word, &x, sizeof(T));
  const Operands* const all = exchange(Collective::kShuffle, mine);
  __builtin_memcpy(&x, all[source & (kWarpLanes - 1)].word, sizeof(T));
  return x;
}

unsigned ballot(bool x);

uint32_t to_tf32(float x);

// One lane's part of C += A B; fragments as primitives/mma.h describes them.
void warp_mma(Collective collective, float (&c)[4], const uint32_t* a, const uint32_t* b);

template <class S, int K, int kA, int kB>
void mma(float (&c)[4], const uint32_t (&a)[kA], const uint32_t (&b)[kB]) {
  constexpr Collective kCollective = std::is_same_v<S, Tf32>       ? Collective::kMmaTf32
                                     : std::is_same_v<S, BFloat16> ? Collective::kMmaBFloat16
                                     : K == 16                     ? Collective::kMmaHalf16
                                                                   : Collective::kMmaHalf8;
  static_assert(kA == (std::is_same_v<S, Tf32> ? K / 2 : K / 4) && kB == kA / 2, "words of a fragment");
  static_assert(std::is_same_v<S, BFloat16> ? K == 16
                : std::is_same_v<S, Tf32>   ? K == 8
                                            : K == 8 || K == 16,
                "shapes that mma has");
  warp_mma(kCollective, c, a, b);
}

void warp_load_matrices(uint32_t (&word)[4], const void* row);

template <class S>
void load_matrices(uint32_t (&word)[4], SharedView<S> view, int i) {
  static_assert(sizeof(S) == 2, "16-bit values");
  warp_load_matrices(word, view.matrix_row(i));
}

}  // namespace rnnfast::emulator
