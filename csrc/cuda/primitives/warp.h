// SPDX-License-Identifier: Apache-2.0
// Exchange between the lanes of a warp. All 32 lanes must take part. A shuffle orders no access to memory.
#pragma once

#include "cuda/primitives/platform.h"

namespace RNNFAST_NAMESPACE {

#if defined(__CUDACC__)

// x of the lane whose number differs in the bits of mask.
template <class T>
RNNFAST_DEVICE T shuffle_xor(T x, int mask) {
  return __shfl_xor_sync(kAllLanes, x, mask);
}
// x of lane `source`.
template <class T>
RNNFAST_DEVICE T shuffle(T x, int source) {
  return __shfl_sync(kAllLanes, x, source);
}
RNNFAST_DEVICE bool any_lane(bool x) { return __any_sync(kAllLanes, x); }
RNNFAST_DEVICE unsigned ballot(bool x) { return __ballot_sync(kAllLanes, x); }

#else

template <class T>
T shuffle_xor(T x, int mask) {
  return emulator::shuffle(x, (emulator::thread().index % kWarp) ^ mask);
}
template <class T>
T shuffle(T x, int source) {
  return emulator::shuffle(x, source);
}
inline bool any_lane(bool x) { return emulator::ballot(x) != 0; }
inline unsigned ballot(bool x) { return emulator::ballot(x); }

#endif

// The sum over each group of kGroup neighbouring lanes (a power of two), in every one of them; the order is fixed.
template <int kGroup, class T>
RNNFAST_DEVICE T group_sum(T x) {
#pragma unroll
  for (int mask = kGroup / 2; mask > 0; mask /= 2) x += shuffle_xor(x, mask);
  return x;
}

}  // namespace RNNFAST_NAMESPACE
