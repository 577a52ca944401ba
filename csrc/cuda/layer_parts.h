// SPDX-License-Identifier: Apache-2.0
// What the forward and the backward driver of a layer share: a cell's constants and kernels by its kind, the
// workspace, products, checks.
#pragma once

#include "cuda/layer.h"
#include "cuda/scan.h"
#include "cuda/step.h"

namespace RNNFAST_NAMESPACE {

// A cell's constants (docs/architecture.md, "A cell") and kernels, for code that does not know its class.
template <class S>
struct CudaCell {
  int gates, saved, delta, delta_recurrent, first_gate, signals;
  bool has_cell, apart, carries_forward, carries_backward;
  Status (*step_forward)(const StepForward<S>&, Stream);
  Status (*step_hidden_norms)(const StepBackward<S>&, Stream);
  Status (*step_receive)(const StepBackward<S>&, Stream);
  Status (*step_cell_norms)(const StepBackward<S>&, Stream);
  Status (*step_backward)(const StepBackward<S>&, Stream);
  Status (*step_initial)(const StepBackward<S>&, Stream);
  Status (*scan_forward)(const ScanForward<S>&, const CudaPlan&, Stream);
  Status (*scan_backward)(const ScanBackward<S>&, const CudaPlan&, Stream);
};

template <class S>
const CudaCell<S>& cuda_cell(CellKind kind);

// Cuts a workspace into pieces; with a null base, only adds up what they take.
class Arena {
 public:
  explicit Arena(void* base) : base_(reinterpret_cast<uintptr_t>(base)) {}
  template <class T>
  T* take(int64_t count) {
    if (count <= 0) return nullptr;
    T* const piece = reinterpret_cast<T*>(base_ + used_);
    used_ += (static_cast<size_t>(count) * sizeof(T) + kPiece - 1) / kPiece * kPiece;
    return piece;
  }
  size_t used() const { return used_; }

  static constexpr size_t kPiece = 256;

 private:
  uintptr_t base_;
  size_t used_ = 0;
};

// A factor of a product as it stands in memory: `ld` elements from row to row; transposed: it enters as its
// transpose.
template <class S>
struct Factor {
  const S* data;
  int64_t ld;
  bool transposed = false;
};

// c [M, N] (= or +=) a [M, K] b [K, N]. C: S or Compute<S>.
template <class S, class C>
Status multiply(const Gemm& gemm, Stream stream, int64_t M, int64_t N, int64_t K, const Factor<S>& a,
                const Factor<S>& b, C* c, int64_t ldc, bool accumulate) {
  if (M == 0 || N == 0) return {};
  GemmCall call;
  call.in = kDtype<S>, call.out = kDtype<C>;
  call.M = M, call.N = N, call.K = K;
  call.a = a.data, call.lda = a.ld, call.transpose_a = a.transposed;
  call.b = b.data, call.ldb = b.ld, call.transpose_b = b.transposed;
  call.c = c, call.ldc = ldc, call.accumulate = accumulate;
  return gemm(call, stream);
}

// Whether the N rows of x lie at one distance, at least I: then a product takes them as they are. Else they are
// copied first.
template <class S>
bool rows_at_one_distance(const LayerInputs<S>& in) {
  const Sequence& seq = in.sequence;
  if (seq.rows() <= 1) return true;
  if (seq.offsets || seq.T == 1) return in.x_row >= in.I;
  if (seq.B == 1) return in.x_step >= in.I;
  return in.x_row >= in.I && in.x_step == seq.B * in.x_row;
}

// x as a factor [N, I]; `copy` ([N, I]) is filled where its rows need it.
template <class S>
Status input_rows(const LayerInputs<S>& in, S* copy, Factor<S>& x, Stream stream);

// A packed sequence's numbers on the device; null where dense.
struct SequenceSpace {
  int64_t* batch_sizes = nullptr;  // [T]
  int64_t* offsets = nullptr;      // [T + 1]
  int64_t* lengths = nullptr;      // [B], where they are wanted

  void take(Arena& arena, const Sequence& sequence, bool wants_lengths) {
    if (!sequence.offsets) return;
    batch_sizes = arena.take<int64_t>(sequence.T), offsets = arena.take<int64_t>(sequence.T + 1);
    if (wants_lengths) lengths = arena.take<int64_t>(sequence.B);
  }
};
Status device_sequence(const Sequence& sequence, const SequenceSpace& space, DeviceSequence& result, Stream stream);

// Sizes that the kernels' ints hold, and a path that can do what is asked for.
template <class S>
Status check_layer(const char* operation, const CudaCell<S>& cell, const LayerInputs<S>& in, const CudaPlan& plan,
                   const void* workspace);

// The step that a scan visits as its p-th.
StepRows step_rows(const Sequence& sequence, int64_t p, bool reverse);

}  // namespace RNNFAST_NAMESPACE
