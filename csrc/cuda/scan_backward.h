// SPDX-License-Identifier: Apache-2.0
// The persistent backward scan: one cooperative launch for all steps of a layer, in reverse processing order. A
// block owns some hidden units and keeps their columns of W_hh in registers and shared memory; delta, the gradient
// of the pre-activations, goes from block to block through L2, with one grid barrier a step:
//
//   delta_{t+1} times the block's columns -> sums of the warps to shared memory -> each (unit, sample) by one
//   thread: dL/dh_t, limits, the cell's backward -> delta_t -> arrive -> what the forward pass saved of the next
//   step -> wait
//
// delta is written once, at its place in [N, kDelta*H], and read from there; only where H is not whole packs of 16
// bytes its recurrent columns are exchanged through a padded copy of two halves. A sample that enters the scan at
// its first step leaves it with grad_h0 = delta W_hh: in reverse packed sequences that is before others end.
//
// Recording: each thread also leaves its pairs' error signals, D B H kSignals C bytes a step; the norms are taken
// of them after the launch (record.h), since a sample's units are spread over blocks. Off, that is one uniform
// branch.
//
// Per step, D directions, C = sizeof(Compute<S>): 2 D B G H^2 flops; each block reads B G H sizeof(S) bytes of
// delta from L2; beside that D B H (S C + sizeof(S)) bytes are read (what was saved, grad_y), with c another
// D B H 2 C, else D B H sizeof(S) of h, and D B H kDelta sizeof(S) written. Weights move only from register or
// shared memory.
//
// Expected on an H100 (as in scan_forward.h, not measured). Float by multiply-adds, B = 1: delta 0.25 us, product
// and its sums 0.3, pointwise 0.25, barrier 0.8: about 1.6 us a step. B = 32: product 3.4, beside it delta (256 KB
// a block) 2.4; pointwise 0.3, barrier 0.8: about 4.5 us. B = 32 in half on tensor cores: delta 1.2, beside it the
// product 0.6; sums and pointwise 0.4, barrier 0.8: about 2.4 us.
#pragma once

#include "cuda/primitives/barrier.h"
#include "cuda/scan_common.h"

namespace RNNFAST_NAMESPACE {

// A block's columns of W_hh [G*H, H], one row of the slice each; its depth is [G][ld], as delta is exchanged.
template <class S>
struct BackwardSlice {
  const S* w_hh;
  int gates, H, units, ld;

  RNNFAST_DEVICE const S* row(int m) const {
    const int unit = block_index() * units + m;
    return m < units && unit < H ? w_hh + unit : nullptr;
  }
  // As in ForwardSlice.
  struct Place {
    int g, j;
  };
  RNNFAST_DEVICE Place place(int k) const { return {k / ld, k % ld}; }
  RNNFAST_DEVICE void advance(Place& k, int step) const {
    for (k.j += step; k.j >= ld; k.j -= ld) ++k.g;
  }
  template <int N>
  RNNFAST_DEVICE Pack<S, N> load(const S* row, Place k) const {
    if (k.g >= gates) row = nullptr;
    const S* const from = row ? row + (static_cast<int64_t>(k.g) * H + k.j) * H : nullptr;
    Pack<S, N> pack;
#pragma unroll
    for (int i = 0; i < N; ++i)
      pack.value[i] = row && k.j + i < H ? from[static_cast<int64_t>(i) * H] : narrow<S>(Compute<S>(0));
    return pack;
  }
};

template <class Cell, class S, class Product>
class BackwardBlock {
  using V = Compute<S>;
  using Unit = UnitBackward<Cell, S>;
  static constexpr int G = Cell::kGates;

  struct Step {
    int t, active, earlier, later;  // samples at work; those with a step before; and after, in processing order
    int64_t row, row_before;        // of sample 0, at this step and at the one before
  };

 public:
  RNNFAST_DEVICE BackwardBlock(const ScanBackward<S>& args, const ScanBackwardDirection<S>& direction)
      : a_(args),
        d_(direction),
        cell_(args.variant),
        pairs_(args.H, args.units),
        ld_(static_cast<int>(exchange_ld(args.H, sizeof(S)))),
        delta_(direction.delta,
               direction.delta ? args.sequence.first_row(args.sequence.T) * Cell::kDelta * args.H : 0),
        padded_(direction.exchange, exchange_elements(G, args.sequence.B, args.H, sizeof(S))),
        one_pair_(args.sequence.B <= pairs_.lanes && args.sequence.B <= args.columns),
        loaded_{},
        carried_(0) {}

  RNNFAST_DEVICE void run() {
    const int T = a_.sequence.T;
    const ScanMemory memory =
        scan_memory(Product::kProduct, true, G, a_.units, a_.H, a_.columns, static_cast<int>(sizeof(S)));
    const int ld_partial = partial_ld(1, a_.units);
    const Partials<V> partials{
        dynamic_shared<V>(static_cast<int>(memory.partial), kScanWarps * a_.columns * ld_partial), a_.columns,
        ld_partial};
    const Product product(0, a_.units, G * ld_, BackwardSlice<S>{d_.w_hh, G, a_.H, a_.units, ld_});
    GridBarrier barrier(d_.counter, grid_blocks());

    begin();
    Step step = step_of(T - 1);
    load_ahead(step, 0);
    int before = 0;  // samples of the step visited before this one, a later one; and where its delta begins
    int64_t row_before = 0;
    // At -1 nobody is at work: the last samples leave.
    const int last = d_.grad_h0 || d_.grad_c0 ? -1 : 0;
    for (int p = T - 1;; --p) {
      // Samples that are not active any more get grad_h0.
      const int returning = d_.grad_h0 && !RNNFAST_MUTATION("scan backward: leave") ? before : step.later;
      const int all = step.active > before ? step.active : before;
      for (int first = 0; first < all; first += a_.columns) {
        const int end = all - first < a_.columns ? all : first + a_.columns;
        if (first < returning) {
          multiply(product, p, row_before, first, returning < end ? returning : end, partials);
          if (!RNNFAST_MUTATION("scan backward: barrier")) sync_block();
        }
        finish(step, p, first, end, returning, partials);
        if (end < all) {
          load_ahead(step, end);
          // The next pass's sums stand where these did.
          if (!RNNFAST_MUTATION("scan backward: barrier of passes")) sync_block();
        }
      }
      if (p == last) return;
      before = step.active;
      row_before = step.row;
      barrier.arrive();
      step = p > 0 ? step_of(p - 1) : Step{};
      load_ahead(step, 0);
      if (!RNNFAST_MUTATION("scan backward: grid barrier")) barrier.wait();
    }
  }

 private:
  RNNFAST_DEVICE bool padded() const { return ld_ != a_.H; }

  // Row of the padded copy's half that step p writes.
  RNNFAST_DEVICE int64_t half(int p) const { return static_cast<int64_t>(p & 1) * a_.sequence.B; }

  // Step p's samples [first, end): delta of the step after, whose sample 0 has row `row`, times the slice.
  RNNFAST_DEVICE void multiply(const Product& product, int p, int64_t row, int first, int end,
                               const Partials<V>& partials) const {
    const ExchangeView<S> from = padded() ? padded_ : delta_;
    const int64_t ld = padded() ? G * ld_ : Cell::kDelta * ld_;
    const int64_t at = padded() ? (half(p + 1) + first) * ld
                                : (row + first) * ld + static_cast<int64_t>(Cell::kDeltaRecurrent) * ld_;
    product.multiply(from, at, ld, end - first, partials);
  }

  RNNFAST_DEVICE Step step_of(int p) const {
    const DeviceSequence& s = a_.sequence;
    const int t = s.time_of(p, d_.reverse), before = d_.reverse ? t + 1 : t - 1;
    const int earlier = s.active_before(t, d_.reverse);
    return {t,
            s.active(t),
            earlier,
            s.active_after(t, d_.reverse),
            s.first_row(t),
            earlier > 0 ? s.first_row(before) : 0};
  }

  RNNFAST_DEVICE int64_t state(int n) const { return static_cast<int64_t>(n) * a_.H + pairs_.unit; }

  // What is carried into the last steps; zeros behind the last unit of the padded copy.
  RNNFAST_DEVICE void begin() {
    if (!pairs_.owns) return;
    const int B = a_.sequence.B;
    for (int first = 0; first < B; first += a_.columns)
      for (int n = first + pairs_.sample; n < first + a_.columns && n < B; n += pairs_.lanes) {
        if (padded() && pairs_.unit == a_.H - 1)
          for (int which = 0; which < 2; ++which)
            for (int g = 0; g < G; ++g)
              for (int j = a_.H; j < ld_; ++j)
                padded_.store(((half(which) + n) * G + g) * ld_ + j, narrow<S>(V(0)));
        if constexpr (kCarriesBackward<Cell>) {
          carried_ = Unit::initial(d_, a_.H, n, pairs_.unit);
          if (!one_pair_) d_.carried[state(n)] = carried_;
        }
      }
  }

  RNNFAST_DEVICE void load(const Step& s, int n) {
    loaded_ = Unit::load(d_, a_.y_stride, a_.H, s.row + n, s.row_before + n, n, pairs_.unit, n >= s.earlier,
                         n >= s.later);
  }

  // What the thread's first pair of the pass from sample `first` on reads, and a hint about the others.
  RNNFAST_DEVICE void load_ahead(const Step& s, int first) {
    const int end = s.active - first < a_.columns ? s.active : first + a_.columns;
    int n = first + pairs_.sample;
    if (!pairs_.owns || n >= end) return;
    load(s, n);
    for (n += pairs_.lanes; n < end; n += pairs_.lanes) {
      if constexpr (Cell::kSaved > 0) {
        const V* const saved = d_.saved + (s.row + n) * Cell::kSaved * a_.H + pairs_.unit;
#pragma unroll
        for (int i = 0; i < Cell::kSaved; ++i) prefetch_global(saved + static_cast<int64_t>(i) * a_.H);
      }
      if (d_.grad_y) prefetch_global(d_.grad_y + (s.row + n) * a_.y_stride + pairs_.unit);
    }
  }

  // The thread's pairs of a pass, samples [first, end): the cell's backward of those at work; the others leave.
  RNNFAST_DEVICE void finish(const Step& s, int p, int first, int end, int returning, const Partials<V>& partials) {
    if (!pairs_.owns) return;
    for (int n = first + pairs_.sample; n < end; n += pairs_.lanes) {
      V returned = n < returning ? partials.sum_of_warps(n - first, pairs_.row(a_.units)) : V(0);
      if (n >= s.active) {
        leave(n, returned);
        continue;
      }
      if (n >= first + pairs_.lanes) load(s, n);
      V carried = kept(n);
      if (cut_behind(a_.sequence, a_.bptt, s.t, n, d_.reverse)) returned = carried = 0;
      V* const signals = d_.signals ? d_.signals + (s.row + n) * kSignals<Cell> * a_.H + pairs_.unit : nullptr;
      const typename Unit::Result result = Unit::step(cell_, loaded_, a_.bptt, returned, carried, signals, a_.H);
      const int64_t at = (s.row + n) * Cell::kDelta * a_.H + pairs_.unit;
#pragma unroll
      for (int k = 0; k < Cell::kDelta; ++k)
        delta_.store(at + static_cast<int64_t>(k) * a_.H, Unit::delta_of(result, k));
      if (padded())
#pragma unroll
        for (int g = 0; g < G; ++g)
          padded_.store(
              ((half(RNNFAST_MUTATION("scan backward: half") ? p + 1 : p) + n) * G + g) * ld_ + pairs_.unit,
              Unit::delta_of(result, Cell::kDeltaRecurrent + g));
      if constexpr (kCarriesBackward<Cell>) {
        carried_ = result.carry;
        if (!one_pair_) d_.carried[state(n)] = carried_;
      }
    }
  }

  RNNFAST_DEVICE V kept(int n) const {
    return kCarriesBackward<Cell> && !one_pair_ ? d_.carried[state(n)] : carried_;
  }

  // The sample's first step lies behind it.
  RNNFAST_DEVICE void leave(int n, V returned) const {
    Unit::store_initial(d_, a_.H, n, pairs_.unit, returned, kept(n));
  }

  const ScanBackward<S>& a_;
  const ScanBackwardDirection<S>& d_;
  const Cell cell_;
  const ScanPairs pairs_;
  const int ld_;  // units of a gate, as exchanged
  const ExchangeView<S> delta_, padded_;
  const bool one_pair_;           // then what is carried stays in a register
  typename Unit::Loaded loaded_;  // of the pair at work, or to come
  V carried_;
};

template <class Cell, class S, class Product>
RNNFAST_KERNEL(kScanThreads, 1)
scan_backward_kernel(ScanBackward<S> args) {
  BackwardBlock<Cell, S, Product>(args, args.direction[block_index_y()]).run();
}

template <class Cell, class S>
struct BackwardLauncher {
  const ScanBackward<S>& args;
  const CudaPlan& plan;
  Stream stream;

  template <class Product>
  Status run() const {
    const Launch l{plan.blocks, plan.directions, kScanThreads, kScanThreads, plan.shared_bytes, true};
    return launch(scan_backward_kernel<Cell, S, Product>, l, args, stream);
  }
};

template <class Cell, class S>
Status scan_backward(const ScanBackward<S>& args, const CudaPlan& plan, Stream stream) {
  RNNFAST_TRY(check_scan(plan, true, Cell::kGates, args.sequence.T, args.sequence.B, args.H, sizeof(S)));
  if (args.bptt.clip == Bptt::kNorm) return scan_error("limits on the norm run on the step path");
  const bool padded = exchange_ld(args.H, sizeof(S)) != args.H;
  for (int i = 0; i < plan.directions; ++i) {
    const ScanBackwardDirection<S>& d = args.direction[i];
    if (!pack_aligned(d.delta) || !pack_aligned(d.exchange))
      return scan_error("delta and exchange must be aligned to 16 bytes");
    if (padded && !d.exchange) return scan_error("exchange is missing");
    if (kCarriesBackward<Cell> && !d.carried) return scan_error("carried is missing");
  }
  ScanBackward<S> planned = args;
  planned.units = plan.units;
  planned.columns = plan.columns;
  const BackwardLauncher<Cell, S> launcher{planned, plan, stream};
  if (plan.product == CudaProduct::kFma) return choose_fma<S>(plan, launcher);
  return choose_mma<S, true>(plan.units, launcher);
}

}  // namespace RNNFAST_NAMESPACE
