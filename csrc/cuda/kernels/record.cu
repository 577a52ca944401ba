// SPDX-License-Identifier: Apache-2.0
#include "cuda/record.h"

#include "cuda/measure.h"

namespace RNNFAST_NAMESPACE {
namespace {

constexpr int64_t kMostBlocks = 1 << 20;  // of a grid; blocks go on to further rows
constexpr int kEach = 4;                  // values of a thread, where a row is long enough

template <class V>
RNNFAST_KERNEL(kMeasureThreads, 2)
record_rows_kernel(RecordRows<V> p) {
  for (int64_t row = block_index(); row < p.rows; row += grid_blocks()) {
    V* const to = p.record + row * kRecorded;
    for (int i = 0; i < p.count; ++i) {
      const V* const from = p.signals + (row * p.count + i) * p.H;
      const Measured<V> seen = measure<V>(p.H, p.bptt, [&](int j) { return from[j]; });
      if (thread_index() > 0) continue;
      if (i == 0) {
        record_hidden(to, seen);
      } else {
        record_cell(to, seen);
      }
    }
  }
}

}  // namespace

template <class V>
Status record_rows(const RecordRows<V>& rows, Stream stream) {
  Launch l;
  l.grid_x = static_cast<int>(rows.rows < kMostBlocks ? rows.rows : kMostBlocks);
  while (l.block < kMeasureThreads && l.block * kEach < rows.H) l.block *= 2;
  l.max_threads = kMeasureThreads;
  return launch(record_rows_kernel<V>, l, rows, stream);
}

template Status record_rows<float>(const RecordRows<float>&, Stream);
template Status record_rows<double>(const RecordRows<double>&, Stream);

}  // namespace RNNFAST_NAMESPACE
