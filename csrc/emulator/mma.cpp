// SPDX-License-Identifier: Apache-2.0
// Tensor-core products, shuffles' kin and ldmatrix; fragments as primitives/mma.h describes them.
#include <cstring>

#include "emulator/state.h"

namespace rnnfast::emulator {

namespace {

void need(int architecture, const char* what) {
  const CudaDevice& device = machine().set.device;
  if (device.architecture < architecture)
    fail("mma", "%s needs sm_%d, the device is %s", what, architecture, device.name);
}

float half_word(uint32_t word, int high) { return to_float(Half{static_cast<uint16_t>(word >> 16 * high)}); }
float bfloat16_word(uint32_t word, int high) {
  return to_float(BFloat16{static_cast<uint16_t>(word >> 16 * high)});
}

constexpr int kM = 16, kN = 8, kMaxK = 16;
struct Factors {
  int K;
  float a[kM][kMaxK], b[kMaxK][kN];
};

template <class Word>
void gather_16bit(const Operands* lanes, int K, Word value, Factors& f) {
  const int a_words = K / 4, b_words = K / 8;
  f.K = K;
  for (int lane = 0; lane < kWarpLanes; ++lane) {
    const int g = lane / 4, q = lane % 4;
    for (int w = 0; w < a_words; ++w)
      for (int e = 0; e < 2; ++e) f.a[g + 8 * (w % 2)][2 * q + e + 8 * (w / 2)] = value(lanes[lane].word[w], e);
    for (int w = 0; w < b_words; ++w)
      for (int e = 0; e < 2; ++e) f.b[2 * q + e + 8 * w][g] = value(lanes[lane].word[4 + w], e);
  }
}

// The hardware reads only the bits of tf32.
void gather_tf32(const Operands* lanes, Factors& f) {
  f.K = 8;
  for (int lane = 0; lane < kWarpLanes; ++lane) {
    const int g = lane / 4, q = lane % 4;
    for (int w = 0; w < 4; ++w) f.a[g + 8 * (w % 2)][q + 4 * (w / 2)] = float_of(lanes[lane].word[w] & ~0x1fffu);
    for (int w = 0; w < 2; ++w) f.b[q + 4 * w][g] = float_of(lanes[lane].word[4 + w] & ~0x1fffu);
  }
}

}  // namespace

// Operands: words 0 to 3 A, 4 and 5 B, 6 to 9 C. The product of two factors is exact in float.
void multiply(Collective collective, const Operands* lanes, float* c) {
  Factors f;
  switch (collective) {
    case Collective::kMmaHalf16:
      gather_16bit(lanes, 16, half_word, f);
      break;
    case Collective::kMmaHalf8:
      gather_16bit(lanes, 8, half_word, f);
      break;
    case Collective::kMmaBFloat16:
      gather_16bit(lanes, 16, bfloat16_word, f);
      break;
    default:
      gather_tf32(lanes, f);
  }
  for (int lane = 0; lane < kWarpLanes; ++lane)
    for (int i = 0; i < 4; ++i)
      c[(lane / 4 + 8 * (i / 2)) * kN + 2 * (lane % 4) + i % 2] = float_of(lanes[lane].word[6 + i]);
  for (int m = 0; m < kM; ++m)
    for (int k = 0; k < f.K; ++k)
      for (int n = 0; n < kN; ++n) c[m * kN + n] += f.a[m][k] * f.b[k][n];
}

void warp_mma(Collective collective, float (&c)[4], const uint32_t* a, const uint32_t* b) {
  if (collective == Collective::kMmaHalf16 && machine().set.device.architecture < 80) {
    // Two instructions of half the depth, as the device's code there (primitives/mma.h).
    warp_mma(Collective::kMmaHalf8, c, a, b);
    warp_mma(Collective::kMmaHalf8, c, a + 2, b + 1);
    return;
  }
  switch (collective) {
    case Collective::kMmaHalf16:
      break;
    case Collective::kMmaBFloat16:
      need(80, "m16n8k16 of bfloat16");
      break;
    case Collective::kMmaHalf8:
      need(75, "m16n8k8 of half");
      break;
    default:
      need(80, "m16n8k8 of tf32");
  }
  const bool tf32 = collective == Collective::kMmaTf32, deep = collective != Collective::kMmaHalf8;
  Operands mine{};
  std::memcpy(mine.word, a, (deep ? 4 : 2) * sizeof(uint32_t));
  std::memcpy(mine.word + 4, b, (tf32 || deep ? 2 : 1) * sizeof(uint32_t));
  std::memcpy(mine.word + 6, c, sizeof(c));
  const FiberThread& self = *machine().running;
  const float* const product = self.warp->product[self.warp->turn];
  exchange(collective, mine);
  const int lane = self.index % kWarpLanes;
  for (int i = 0; i < 4; ++i) c[i] = product[(lane / 4 + 8 * (i / 2)) * kN + 2 * (lane % 4) + i % 2];
}

uint32_t to_tf32(float x) {
  need(80, "tf32");
  return round_to_tf32(bits_of(x));
}

unsigned ballot(bool x) {
  Operands mine{};
  mine.word[0] = x;
  const Operands* const all = exchange(Collective::kBallot, mine);
  unsigned result = 0;
  for (int lane = 0; lane < kWarpLanes; ++lane) result |= all[lane].word[0] << lane;
  return result;
}

// A lane reads its two values of each matrix itself, so that they are its accesses.
void warp_load_matrices(uint32_t (&word)[4], const void* row) {
  need(75, "ldmatrix");
  Operands mine{};
  std::memcpy(mine.word, &row, sizeof(row));
  const Operands* const all = exchange(Collective::kLoadMatrices, mine);
  const int lane = machine().running->index % kWarpLanes;
  for (int matrix = 0; matrix < 4; ++matrix) {
    const char* from;
    std::memcpy(&from, all[8 * matrix + lane / 4].word, sizeof(from));
    from += 4 * (lane % 4);
    check_access(Memory::kShared, Access::kRead, from, 4, lane % 4, 8);
    std::memcpy(&word[matrix], from, 4);
  }
}

}  // namespace rnnfast::emulator
