// SPDX-License-Identifier: Apache-2.0
// After a persistent backward scan: what is recorded of each row, of the error signals that the scan has left.
#pragma once

#include "cuda/params.h"
#include "cuda/primitives/launch.h"

namespace RNNFAST_NAMESPACE {

template <class V>
struct RecordRows {
  const V* signals = nullptr;  // [rows, count, H]: dL/dh, and with count = 2 dL/dc, before their limits
  int64_t rows = 0;
  int count = 1, H = 0;
  Bptt bptt;            // that the scan was told
  V* record = nullptr;  // [rows, kRecorded]
};

// A block takes a row at a time. Bytes: rows * count * H * sizeof(V) read, once. Nothing here is on the scan's
// critical path: one launch for all rows.
template <class V>
Status record_rows(const RecordRows<V>& rows, Stream stream);

}  // namespace RNNFAST_NAMESPACE
