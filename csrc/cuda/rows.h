// SPDX-License-Identifier: Apache-2.0
// What the layer driver does to rows of memory besides products: copies, h_{t-1} of packed sequences, sums over
// rows; and how batch_sizes get to the device.
#pragma once

#include "cuda/params.h"
#include "cuda/primitives/launch.h"

namespace RNNFAST_NAMESPACE {

// Row r of `to` (contiguous, `columns` wide) from `from + r / inner * outer_stride + r % inner * inner_stride`.
template <class S>
struct CopyRows {
  const S* from = nullptr;
  int64_t inner = 1, outer_stride = 0, inner_stride = 0;
  S* to = nullptr;
  int64_t rows = 0;
  int columns = 0;
};
// Bytes: 2 * rows * columns * sizeof(S).
template <class S>
Status copy_rows(const CopyRows<S>& copy, Stream stream);

// Row r of `to` ([N, columns]): h before row r's step: a row of y, or of h0, or zeros.
template <class S>
struct PreviousHidden {
  DeviceSequence sequence;
  const S* y = nullptr;  // this direction's columns: row r at y + r * y_stride
  int64_t y_stride = 0;
  const S* h0 = nullptr;  // [B, columns] or null
  bool reverse = false;
  S* to = nullptr;
  int64_t rows = 0;
  int columns = 0;
};
// Bytes: 2 * N * columns * sizeof(S), and a search in offsets for each row.
template <class S>
Status previous_hidden(const PreviousHidden<S>& gather, Stream stream);

// Sums over the rows of delta ([N, blocks * H]) into the biases' gradients. Input block b belongs to gate
// (b + first_gate) mod gates; the recurrent share begins at block `recurrent` (docs/architecture.md, "A cell").
template <class S>
struct BiasGradients {
  const S* delta = nullptr;  // at a multiple of 4 bytes
  int64_t rows = 0;
  int H = 0, blocks = 0, gates = 0, recurrent = 0, first_gate = 0;
  Compute<S>* partial = nullptr;  // [bias_chunks(rows), blocks * H]
  S* grad_b_ih = nullptr;         // [gates * H] or null
  S* grad_b_hh = nullptr;
};
// Rows are summed in chunks, then the chunks: two launches, an order that depends on nothing but the size.
// Bytes: N * blocks * H * sizeof(S), read once.
template <class S>
Status bias_gradients(const BiasGradients<S>& sums, Stream stream);
int64_t bias_chunks(int64_t rows);

// `count` values of host memory to the device. They travel as arguments of launches, so host memory need be neither
// pinned nor kept, and a CUDA graph holds them itself.
Status upload(const int64_t* values, int64_t count, int64_t* to, Stream stream);

}  // namespace RNNFAST_NAMESPACE
