// SPDX-License-Identifier: Apache-2.0
#include "cuda/rows.h"

#include <initializer_list>

#include "cuda/primitives/memory.h"

namespace RNNFAST_NAMESPACE {
namespace {

constexpr int kThreads = 256;
constexpr int kMostBlocks = 1 << 20;  // of a grid; blocks go on to further rows

// A block's threads take neighbouring columns of one row, or of several where rows are short.
template <class Copy>
struct RowsLaunch {
  Copy copy;
  int column_bits;
};

template <class S>
RNNFAST_DEVICE const S* source(const CopyRows<S>& c, int64_t row) {
  return c.from + row / c.inner * c.outer_stride + row % c.inner * c.inner_stride;
}

template <class S>
RNNFAST_DEVICE const S* source(const PreviousHidden<S>& g, int64_t row) {
  const DeviceSequence& seq = g.sequence;
  int low = 0, high = seq.T;  // the step of the row: first_row(low) <= row < first_row(high)
  while (high - low > 1) {
    const int middle = low + (high - low) / 2;
    if (seq.first_row(middle) <= row) {
      low = middle;
    } else {
      high = middle;
    }
  }
  const int b = static_cast<int>(row - seq.first_row(low));
  if (b < seq.active_before(low, g.reverse))
    return g.y + (seq.first_row(g.reverse ? low + 1 : low - 1) + b) * g.y_stride;
  return g.h0 ? g.h0 + static_cast<int64_t>(b) * g.columns : nullptr;
}

// 16 bytes of values, moved as one.
struct alignas(16) Wide {
  uint32_t word[4];
};

template <class Copy, class S>
RNNFAST_KERNEL(kThreads, 4)
rows_kernel(RowsLaunch<Copy> p) {
  const Copy& c = p.copy;
  S zero;
  __builtin_memset(static_cast<void*>(&zero), 0, sizeof(S));
  const int width = 1 << p.column_bits, at_once = kThreads >> p.column_bits;
  const int64_t stride = static_cast<int64_t>(grid_blocks()) * at_once;
  int64_t row = static_cast<int64_t>(block_index()) * at_once + (thread_index() >> p.column_bits);
  for (; row < c.rows; row += stride) {
    const S* const from = source(c, row);
    for (int j = thread_index() & (width - 1); j < c.columns; j += width)
      c.to[row * c.columns + j] = from ? from[j] : zero;
  }
}

template <class S, class Copy>
Status launch_rows(const Copy& copy, Stream stream) {
  if (copy.rows == 0 || copy.columns == 0) return {};
  RowsLaunch<Copy> p{copy, 5};
  while ((1 << p.column_bits) < kThreads && (1 << p.column_bits) < copy.columns) ++p.column_bits;
  const int64_t groups = (copy.rows - 1) / (kThreads >> p.column_bits) + 1;
  Launch l;
  l.grid_x = groups < kMostBlocks ? static_cast<int>(groups) : kMostBlocks;
  l.block = l.max_threads = kThreads;
  return launch(rows_kernel<Copy, S>, l, p, stream);
}

// Values in a Wide, where every one of these distances and addresses is a multiple of it; else 1.
template <class S>
int64_t values_at_once(std::initializer_list<int64_t> distances, std::initializer_list<const void*> addresses) {
  constexpr int64_t kValues = sizeof(Wide) / sizeof(S);
  for (int64_t distance : distances)
    if (distance % kValues != 0) return 1;
  for (const void* address : addresses)
    if (reinterpret_cast<uintptr_t>(address) % sizeof(Wide) != 0) return 1;
  return kValues;
}

template <class S>
const Wide* wide(const S* p) {
  return reinterpret_cast<const Wide*>(p);
}
template <class S>
Wide* wide(S* p) {
  return reinterpret_cast<Wide*>(p);
}

// Sums over rows: a block takes a warp's width of columns and a chunk of rows, a warp every eighth of them.
constexpr int kSumWarps = 8, kSumThreads = kSumWarps * kWarp;
constexpr int64_t kLeastChunk = 512, kMostChunks = 128;

template <class S>
struct SumsLaunch {
  BiasGradients<S> sums;
  int64_t chunk;  // rows
};

// N: neighbouring columns of a thread, so that a warp reads 128 bytes of a row (or more, in double).
template <class S, int N>
RNNFAST_KERNEL(kSumThreads, 4)
partial_sums_kernel(SumsLaunch<S> p) {
  using V = Compute<S>;
  RNNFAST_SHARED(V, parts, kSumThreads * N);
  const int64_t columns = static_cast<int64_t>(p.sums.blocks) * p.sums.H;
  const int64_t column = (static_cast<int64_t>(block_index()) * kWarp + lane_index()) * N;
  const int64_t begin = block_index_y() * p.chunk;
  const int64_t end = begin + p.chunk < p.sums.rows ? begin + p.chunk : p.sums.rows;
  V sum[N] = {};
  if (column < columns) {
#pragma unroll 4
    for (int64_t row = begin + warp_index(); row < end; row += kSumWarps) {
      const auto values = *reinterpret_cast<const Pack<S, N>*>(p.sums.delta + row * columns + column);
#pragma unroll
      for (int i = 0; i < N; ++i) sum[i] += widen(values.value[i]);
    }
  }
#pragma unroll
  for (int i = 0; i < N; ++i) parts.store(i * kSumThreads + thread_index(), sum[i]);
  if (!RNNFAST_MUTATION("sums: barrier")) sync_block();
  if (warp_index() > 0 || column >= columns) return;
#pragma unroll
  for (int i = 0; i < N; ++i) {
    for (int w = 1; w < kSumWarps; ++w) sum[i] += parts.load(i * kSumThreads + w * kWarp + lane_index());
    p.sums.partial[block_index_y() * columns + column + i] = sum[i];
  }
}

template <class S>
RNNFAST_KERNEL(kThreads, 4)
final_sums_kernel(SumsLaunch<S> p) {
  const BiasGradients<S>& s = p.sums;
  const int64_t columns = static_cast<int64_t>(s.blocks) * s.H;
  const int64_t column = static_cast<int64_t>(block_index()) * kThreads + thread_index();
  if (column >= columns) return;
  Compute<S> sum = 0;
  for (int64_t chunk = 0; chunk * p.chunk < s.rows; ++chunk) sum += s.partial[chunk * columns + column];
  const int block = static_cast<int>(column / s.H), unit = static_cast<int>(column % s.H);
  const int recurrent = block - s.recurrent;
  if (s.grad_b_ih && block < s.gates)
    s.grad_b_ih[static_cast<int64_t>((block + s.first_gate) % s.gates) * s.H + unit] = narrow<S>(sum);
  if (s.grad_b_hh && recurrent >= 0 && recurrent < s.gates)
    s.grad_b_hh[static_cast<int64_t>(recurrent) * s.H + unit] = narrow<S>(sum);
}

int64_t chunk_rows(int64_t rows) {
  const int64_t share = (rows + kMostChunks - 1) / kMostChunks;
  return share > kLeastChunk ? share : kLeastChunk;
}

// As much as the 4 KB of a launch's arguments hold.
constexpr int kUploadValues = 480;
struct Values {
  int64_t value[kUploadValues];
  int64_t* to;
  int count;
};

RNNFAST_KERNEL(kThreads, 1)
upload_kernel(Values p) {
  for (int i = thread_index(); i < p.count; i += kThreads) p.to[i] = p.value[i];
}

}  // namespace

template <class S>
Status copy_rows(const CopyRows<S>& c, Stream stream) {
  const int64_t n = values_at_once<S>({c.outer_stride, c.inner_stride, c.columns}, {c.from, c.to});
  if (n == 1) return launch_rows<S>(c, stream);
  return launch_rows<Wide>(CopyRows<Wide>{wide(c.from), c.inner, c.outer_stride / n, c.inner_stride / n, wide(c.to),
                                          c.rows, c.columns / static_cast<int>(n)},
                           stream);
}

template <class S>
Status previous_hidden(const PreviousHidden<S>& g, Stream stream) {
  const int64_t n = values_at_once<S>({g.y_stride, g.columns}, {g.y, g.h0, g.to});
  if (n == 1) return launch_rows<S>(g, stream);
  return launch_rows<Wide>(PreviousHidden<Wide>{g.sequence, wide(g.y), g.y_stride / n, wide(g.h0), g.reverse,
                                                wide(g.to), g.rows, g.columns / static_cast<int>(n)},
                           stream);
}

int64_t bias_chunks(int64_t rows) { return rows == 0 ? 0 : (rows - 1) / chunk_rows(rows) + 1; }

template <class S>
Status bias_gradients(const BiasGradients<S>& sums, Stream stream) {
  const SumsLaunch<S> p{sums, chunk_rows(sums.rows)};
  const int columns = sums.blocks * sums.H;
  const bool pairs = sizeof(S) == 2 && columns % 2 == 0;
  Launch l;
  l.grid_x = (columns - 1) / (pairs ? 2 * kWarp : kWarp) + 1;
  l.grid_y = static_cast<int>(bias_chunks(sums.rows));
  l.block = l.max_threads = kSumThreads;
  if (pairs) {
    RNNFAST_TRY(launch(partial_sums_kernel < S, sizeof(S) == 2 ? 2 : 1 >, l, p, stream));
  } else {
    RNNFAST_TRY(launch(partial_sums_kernel<S, 1>, l, p, stream));
  }
  l.grid_x = (columns - 1) / kThreads + 1;
  l.grid_y = 1;
  l.block = l.max_threads = kThreads;
  return launch(final_sums_kernel<S>, l, p, stream);
}

Status upload(const int64_t* values, int64_t count, int64_t* to, Stream stream) {
  Launch l;
  l.block = l.max_threads = kThreads;
  for (int64_t first = 0; first < count; first += kUploadValues) {
    Values p{};
    p.count = static_cast<int>(count - first < kUploadValues ? count - first : kUploadValues);
    for (int i = 0; i < p.count; ++i) p.value[i] = values[first + i];
    p.to = to + first;
    RNNFAST_TRY(launch(upload_kernel, l, p, stream));
  }
  return {};
}

#define RNNFAST_ROWS(S)                                                 \
  template Status copy_rows<S>(const CopyRows<S>&, Stream);             \
  template Status previous_hidden<S>(const PreviousHidden<S>&, Stream); \
  template Status bias_gradients<S>(const BiasGradients<S>&, Stream);
RNNFAST_ROWS(float)
RNNFAST_ROWS(double)
RNNFAST_ROWS(Half)
RNNFAST_ROWS(BFloat16)

}  // namespace RNNFAST_NAMESPACE
