// SPDX-License-Identifier: Apache-2.0
// The persistent forward scan: one cooperative launch for all steps of a layer. A block owns some hidden units with
// all their gates and keeps its slice of W_hh in registers and shared memory; h goes from block to block through
// L2, with one grid barrier a step:
//
//   product of the slice with h_{t-1} -> sums of the warps to shared memory -> each (unit, sample) by one thread:
//   h_t to `hidden` -> arrive -> y, saved, c; gates_x of the next step -> wait
//
// `hidden` has two halves: a step reads one and writes the other, which all have read when the step begins. Both
// begin as h0, so that a sample of a packed sequence in reverse finds it at its first step.
//
// Per step, D directions, C = sizeof(Compute<S>): 2 D B G H^2 flops; each block reads B H sizeof(S) bytes of h from
// L2; beside that D B H G C bytes are read (gates_x) and D B H 2 sizeof(S) written (y, the exchanged h), in
// training D B H S C more, and with c another D B H C. Weights move only from register or shared memory.
//
// Expected on an H100 (1.7 GHz; LSTM, H = 512, 128 blocks of 4 units), from instructions counted in the machine
// code (two warps a scheduler), latencies and 64 bytes a cycle from L2; not measured. Float by multiply-adds, B =
// 1: h 0.2 us, product and its sums 0.25, pointwise 0.25, barrier 0.8: about 1.5 us a step. B = 32: eight tiles of
// 350 instructions 3.3, beside them h (64 KB a block) 0.6; pointwise 0.3, barrier 0.8: about 4.4 us. B = 32 in half
// on tensor cores: h 0.4, product 0.3, sums and pointwise 0.4, barrier 0.8: about 1.9 us.
#pragma once

#include "cuda/primitives/barrier.h"
#include "cuda/scan_common.h"

namespace RNNFAST_NAMESPACE {

// A block's slice of W_hh [G*H, H]: row g * units + u is gate g of its unit u.
template <class S>
struct ForwardSlice {
  const S* w_hh;
  int gates, H, units;

  RNNFAST_DEVICE const S* row(int m) const {
    const int g = m / units, unit = block_index() * units + m % units;
    return g < gates && unit < H ? w_hh + (static_cast<int64_t>(g) * H + unit) * H : nullptr;
  }
  // A place in the depth, a multiple of a pack; step: likewise.
  using Place = int;
  RNNFAST_DEVICE Place place(int k) const { return k; }
  RNNFAST_DEVICE void advance(Place& k, int step) const { k += step; }
  // N values of a row, zero beyond the slice.
  template <int N>
  RNNFAST_DEVICE Pack<S, N> load(const S* row, Place k) const {
    Pack<S, N> pack;
#pragma unroll
    for (int i = 0; i < N; ++i) pack.value[i] = row && k + i < H ? row[k + i] : narrow<S>(Compute<S>(0));
    return pack;
  }
};

template <class Cell, class S, class Product>
class ForwardBlock {
  using V = Compute<S>;
  using Unit = UnitForward<Cell, S>;
  static constexpr int G = Cell::kGates;

  struct Step {
    int t, active, continuing;  // samples at work; and those that have a later step
    int64_t row;                // of sample 0
  };

 public:
  RNNFAST_DEVICE ForwardBlock(const ScanForward<S>& args, const ScanForwardDirection<S>& direction)
      : a_(args),
        d_(direction),
        cell_(args.variant),
        pairs_(args.H, args.units),
        ld_(exchange_ld(args.H, sizeof(S))),
        hidden_(direction.hidden, hidden_elements(args.sequence.B, args.H, sizeof(S))),
        one_pair_(args.sequence.B <= pairs_.lanes && args.sequence.B <= args.columns),
        biases_{},
        input_{},
        carried_(0),
        result_{} {
    if (pairs_.owns) biases_ = Unit::load_biases(d_, a_.H, pairs_.unit);
  }

  RNNFAST_DEVICE void run() {
    const int T = a_.sequence.T;
    const ScanMemory memory =
        scan_memory(Product::kProduct, false, G, a_.units, a_.H, a_.columns, static_cast<int>(sizeof(S)));
    const int ld_partial = partial_ld(G, a_.units);
    const Partials<V> partials{
        dynamic_shared<V>(static_cast<int>(memory.partial), kScanWarps * a_.columns * ld_partial), a_.columns,
        ld_partial};
    const Product product(0, G * a_.units, a_.H, ForwardSlice<S>{d_.w_hh, G, a_.H, a_.units});
    GridBarrier barrier(d_.counter, grid_blocks());

    begin();
    Step step = step_of(0);
    if (d_.h0) barrier.arrive();
    load_ahead(step, 0);
    if (d_.h0) barrier.wait();
    for (int p = 0; p < T; ++p) {
      const bool recurrent = p > 0 || d_.h0;
      for (int first = 0; first < step.active; first += a_.columns) {
        const int count = step.active - first < a_.columns ? step.active - first : a_.columns;
        if (recurrent) {
          product.multiply(hidden_, (half(p) + first) * ld_, ld_, count, partials);
          if (!RNNFAST_MUTATION("scan forward: barrier")) sync_block();
        }
        const int n = finish(step, half(RNNFAST_MUTATION("scan forward: half") ? p : p + 1), first, first + count,
                             recurrent, partials);
        if (first + a_.columns < step.active) {
          store(step, n);
          load_ahead(step, first + a_.columns);
          // The next pass's sums stand where these did.
          if (!RNNFAST_MUTATION("scan forward: barrier of passes")) sync_block();
        } else if (p + 1 < T) {
          barrier.arrive();
          store(step, n);
          step = step_of(p + 1);
          load_ahead(step, 0);
          if (!RNNFAST_MUTATION("scan forward: grid barrier")) barrier.wait();
          break;
        } else {
          store(step, n);
        }
      }
    }
  }

 private:
  // Row of `hidden` at which the half that step p reads begins.
  RNNFAST_DEVICE int64_t half(int p) const { return static_cast<int64_t>(p % 2) * a_.sequence.B; }

  RNNFAST_DEVICE Step step_of(int p) const {
    const int t = a_.sequence.time_of(p, d_.reverse);
    return {t, a_.sequence.active(t), a_.sequence.active_after(t, d_.reverse), a_.sequence.first_row(t)};
  }

  RNNFAST_DEVICE int64_t state(int n) const { return static_cast<int64_t>(n) * a_.H + pairs_.unit; }

  // h0 into both halves of `hidden`, with zeros behind the last unit; what is carried into the first step.
  RNNFAST_DEVICE void begin() {
    if (!pairs_.owns) return;
    const int B = a_.sequence.B;
    for (int first = 0; first < B; first += a_.columns)
      for (int n = first + pairs_.sample; n < first + a_.columns && n < B; n += pairs_.lanes) {
        const S h = d_.h0 ? d_.h0[state(n)] : narrow<S>(V(0));
        for (int which = 0; which < 2; ++which) {
          const int64_t row = (half(which) + n) * ld_;
          hidden_.store(row + pairs_.unit, h);
          if (pairs_.unit == a_.H - 1 && !RNNFAST_MUTATION("scan forward: padding"))
            for (int64_t j = a_.H; j < ld_; ++j) hidden_.store(row + j, narrow<S>(V(0)));
        }
        if constexpr (kCarriesForward<Cell>) {
          carried_ = Unit::initial(d_, a_.H, n, pairs_.unit);
          if (!one_pair_) d_.carried[state(n)] = carried_;
        }
      }
  }

  RNNFAST_DEVICE void load(const Step& step, int n) {
    input_ = Unit::load_input(d_, a_.H, step.row + n, pairs_.unit);
    if constexpr (kCarriesForward<Cell>)
      if (!one_pair_) carried_ = d_.carried[state(n)];
  }

  // What the thread's first pair of the pass from sample `first` on reads, and a hint about the others.
  RNNFAST_DEVICE void load_ahead(const Step& step, int first) {
    const int end = step.active - first < a_.columns ? step.active : first + a_.columns;
    int n = first + pairs_.sample;
    if (!pairs_.owns || n >= end) return;
    load(step, n);
    for (n += pairs_.lanes; n < end; n += pairs_.lanes)
#pragma unroll
      for (int g = 0; g < G; ++g)
        prefetch_global(d_.gates_x + (step.row + n) * d_.gates_stride + static_cast<int64_t>(g) * a_.H +
                        pairs_.unit);
  }

  // The thread's pairs of a pass, samples [first, end). Returns the last one's sample, whose result is not stored
  // yet but for h_t in `hidden`; -1: none.
  RNNFAST_DEVICE int finish(const Step& step, int64_t to, int first, int end, bool recurrent,
                            const Partials<V>& partials) {
    int last = -1;
    if (!pairs_.owns) return last;
    for (int n = first + pairs_.sample; n < end; n += pairs_.lanes) {
      if (last >= 0) {
        store(step, last);
        load(step, n);
      }
      V sums[G];
#pragma unroll
      for (int g = 0; g < G; ++g)
        sums[g] = recurrent ? partials.sum_of_warps(n - first, g * a_.units + pairs_.row(a_.units)) : V(0);
      result_ = Unit::step(cell_, sums, input_, biases_, carried_);
      hidden_.store((to + n) * ld_ + pairs_.unit, narrow<S>(result_.h));
      if constexpr (kCarriesForward<Cell>) {
        carried_ = Unit::carried_of(result_);
        if (!one_pair_) d_.carried[state(n)] = carried_;
      }
      last = n;
    }
    return last;
  }

  RNNFAST_DEVICE void store(const Step& step, int n) const {
    if (n < 0) return;
    const int64_t row = step.row + n;
    Unit::store(d_, d_.y + row * a_.y_stride + pairs_.unit, a_.H, row, n, pairs_.unit, n >= step.continuing,
                result_);
  }

  const ScanForward<S>& a_;
  const ScanForwardDirection<S>& d_;
  const Cell cell_;
  const ScanPairs pairs_;
  const int64_t ld_;
  const ExchangeView<S> hidden_;
  const bool one_pair_;  // then what is carried stays in a register
  typename Unit::Biases biases_;
  typename Unit::Input input_;  // of the pair at work, or to come
  V carried_;
  typename Unit::Result result_;
};

template <class Cell, class S, class Product>
RNNFAST_KERNEL(kScanThreads, 1)
scan_forward_kernel(ScanForward<S> args) {
  ForwardBlock<Cell, S, Product>(args, args.direction[block_index_y()]).run();
}

template <class Cell, class S>
struct ForwardLauncher {
  const ScanForward<S>& args;
  const CudaPlan& plan;
  Stream stream;

  template <class Product>
  Status run() const {
    const Launch l{plan.blocks, plan.directions, kScanThreads, kScanThreads, plan.shared_bytes, true};
    return launch(scan_forward_kernel<Cell, S, Product>, l, args, stream);
  }
};

template <class Cell, class S>
Status scan_forward(const ScanForward<S>& args, const CudaPlan& plan, Stream stream) {
  RNNFAST_TRY(check_scan(plan, false, Cell::kGates, args.sequence.T, args.sequence.B, args.H, sizeof(S)));
  for (int i = 0; i < plan.directions; ++i) {
    const ScanForwardDirection<S>& d = args.direction[i];
    if (!pack_aligned(d.hidden)) return scan_error("hidden must be aligned to 16 bytes");
    if (kCarriesForward<Cell> && !d.carried) return scan_error("carried is missing");
  }
  ScanForward<S> planned = args;
  planned.units = plan.units;
  planned.columns = plan.columns;
  const ForwardLauncher<Cell, S> launcher{planned, plan, stream};
  if (plan.product == CudaProduct::kFma) return choose_fma<S>(plan, launcher);
  return choose_mma<S, false>(Cell::kGates * plan.units, launcher);
}

}  // namespace RNNFAST_NAMESPACE
