// SPDX-License-Identifier: Apache-2.0
// What is measured of a sample's error signal: for limits by norm, and for what a backward pass records of each row
// (core/params.h, kRecorded).
#pragma once

#include <math.h>

#include "cuda/params.h"  // first: it names the namespace that scalar.h is compiled in

#include "core/scalar.h"
#include "cuda/reduce.h"

namespace RNNFAST_NAMESPACE {

constexpr int kMeasureThreads = 256;

template <class V>
struct Measured {
  V norm;
  V limited;  // by value: elements beyond the limit; by norm: 0 or 1
  V factor;   // that brings the norm down to the limit by norm, or 1
};

// Of values(0 ... count). Squares are summed in double, in a fixed order; where that leaves its range (or there are
// zeros, infinities, NaN), in units of the largest value. All threads of the block, at most kMeasureThreads.
template <class V, class Values>
RNNFAST_DEVICE Measured<V> measure(int count, const Bptt& bptt, Values values) {
  RNNFAST_SHARED(double, parts, kMeasureThreads / kWarp);
  const V limit = static_cast<V>(bptt.limit);
  const bool counts = bptt.clip == Bptt::kValue;
  double beyond = 0;
  const auto squares = [&](double unit) {
    double sum = 0;
    beyond = 0;
    for (int j = thread_index(); j < count; j += block_threads()) {
      const V value = values(j);
      const double x = static_cast<double>(value) / unit;
      sum += x * x;
      if (counts && absolute(value) > limit) beyond += 1;
    }
    return block_reduce(Sum(), sum, parts);
  };
  double unit = 1, sum = squares(unit);
  if (!(sum > 1e-280 && sum < 1e280)) {
    double largest = 0;
    for (int j = thread_index(); j < count; j += block_threads())
      largest = Largest()(largest, absolute(static_cast<double>(values(j))));
    largest = block_reduce(Largest(), largest, parts);
    if (largest > 0 && largest * 0 == 0) unit = largest;
    sum = squares(unit);
  }
  Measured<V> result{static_cast<V>(unit * sqrt(sum)), 0, 1};
  if (counts) {
    result.limited = static_cast<V>(block_reduce(Sum(), beyond, parts));
  } else if (bptt.clip == Bptt::kNorm && result.norm > limit) {
    result.limited = 1;
    result.factor = limit / result.norm;
  }
  return result;
}

// A row of the record. By one thread, dL/dh first.
template <class V>
RNNFAST_DEVICE void record_hidden(V* row, const Measured<V>& seen) {
  row[0] = seen.norm, row[1] = 0, row[2] = seen.limited;
}
template <class V>
RNNFAST_DEVICE void record_cell(V* row, const Measured<V>& seen) {
  row[1] = seen.norm, row[2] += seen.limited;
}

}  // namespace RNNFAST_NAMESPACE
