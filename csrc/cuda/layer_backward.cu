// SPDX-License-Identifier: Apache-2.0
// The backward pass of a layer on a device: the scan in reverse processing order, which leaves delta, the gradient
// of the pre-activations, of all rows; then the products over all rows (gradients.h). Step path: each step 2 B G H
// P flops, and with a projection 2 B H P. Recording on the persistent path takes N kSignals H Compute<S> of the
// workspace for each direction of a launch.
#include "cuda/footprint.h"
#include "cuda/gradients.h"
#include "cuda/record.h"
#include "cuda/rows.h"
#include "cuda/unit.h"

namespace RNNFAST_NAMESPACE {
namespace {

template <class S>
struct BackwardSpace {
  using V = Compute<S>;
  S* x = nullptr;                                      // [N, I], where x is copied
  S* delta[2] = {nullptr, nullptr};                    // [N, kDelta*H]
  V* carried[2] = {nullptr, nullptr};                  // [B, H]
  V* returned = nullptr;                               // step path: [B, P]
  V *hidden_factor = nullptr, *cell_factor = nullptr;  // limits by norm: [B]
  S* grad_hidden = nullptr;                            // projection: [N, P]
  V* grad_output = nullptr;                            // projection: [B, H]
  S* cell_output = nullptr;                            // projection: [N, H]
  S* w_ih = nullptr;                                   // [G*H, I], gradients.h
  S* h_prev = nullptr;                                 // [N, P], gradients.h
  V* partial_sums = nullptr;                           // gradients.h
  S* exchange[2] = {nullptr, nullptr};                 // persistent path: delta, padded (footprint.h)
  V* signals[2] = {nullptr, nullptr};                  // persistent path, recording: [N, kSignals, H]
  unsigned* counter[2] = {nullptr, nullptr};           // persistent path
  SequenceSpace sequence;
  size_t bytes = 0;

  BackwardSpace(const CudaCell<S>& cell, const CudaBackward<S>& args, const CudaPlan& plan, void* base) {
    const LayerInputs<S>& in = args.in;
    const int64_t N = in.sequence.rows(), B = in.sequence.B, H = in.H, P = in.P;
    const bool persistent = plan.path == CudaPath::kPersistent;
    Arena arena(base);
    if ((args.grad_w_ih[0] || args.grad_w_ih[1]) && !rows_at_one_distance(in)) x = arena.take<S>(N * in.I);
    for (int i = 0; i < (persistent ? plan.directions : 1); ++i) {
      delta[i] = arena.take<S>(N * cell.delta * H);
      if (cell.carries_backward) carried[i] = arena.take<V>(B * H);
      if (!persistent) continue;
      exchange[i] = arena.take<S>(exchange_elements(cell.gates, B, H, sizeof(S)));
      if (args.record) signals[i] = arena.take<V>(N * cell.signals * H);
      counter[i] = arena.take<unsigned>(1);
    }
    if (!persistent) returned = arena.take<V>(B * P);
    const bool factors = args.bptt.clip == Bptt::kNorm;
    if (factors) hidden_factor = arena.take<V>(B);
    if (factors && cell.has_cell) cell_factor = arena.take<V>(B);
    if (in.projection) {
      grad_hidden = arena.take<S>(N * P);
      grad_output = arena.take<V>(B * H);
      cell_output = arena.take<S>(N * H);
    }
    if (needs_rotated_weights(cell, args)) w_ih = arena.take<S>(cell.gates * H * in.I);
    if (needs_previous_hidden(args)) h_prev = arena.take<S>(N * P);
    if (needs_bias_sums(args)) partial_sums = arena.take<V>(bias_chunks(N) * cell.delta * H);
    sequence.take(arena, in.sequence, args.bptt.steps > 0);
    bytes = arena.used();
  }
};

template <class S>
class BackwardDriver {
 public:
  BackwardDriver(const CudaCell<S>& cell, const CudaBackward<S>& args, const CudaPlan& plan, void* workspace,
                 const Gemm& gemm, Stream stream)
      : cell_(cell),
        args_(args),
        in_(args.in),
        seq_(args.in.sequence),
        plan_(plan),
        space_(cell, args, plan, workspace),
        bptt_(kernel_bptt(args.bptt)),
        gemm_(gemm),
        stream_(stream),
        rows_(seq_.rows()),
        B_(seq_.B),
        H_(in_.H),
        P_(in_.P),
        y_stride_(in_.directions * in_.P) {}

  Status run() {
    RNNFAST_TRY(device_sequence(seq_, space_.sequence, sequence_, stream_));
    if (args_.grad_w_ih[0] || args_.grad_w_ih[1]) RNNFAST_TRY(input_rows(in_, space_.x, x_, stream_));
    if (plan_.path == CudaPath::kPersistent) return run_persistent();
    for (int d = 0; d < in_.directions; ++d) {
      RNNFAST_TRY(run_steps(d));
      RNNFAST_TRY(gradients(d, 0));
    }
    return {};
  }

 private:
  // slot: which of the workspace's pieces it uses.
  ScanBackwardDirection<S> direction_of(int d, int slot) const {
    ScanBackwardDirection<S> result;
    const int64_t hidden = d * B_ * P_, cells = d * B_ * H_;
    result.w_hh = in_.weights[d].w_hh;
    if (in_.h0) result.h0 = in_.h0 + hidden;
    result.y = args_.y + d * P_;
    if (args_.grad_y) result.grad_y = args_.grad_y + d * P_;
    if (args_.grad_h_n) result.grad_h_n = args_.grad_h_n + hidden;
    if (args_.grad_h0) result.grad_h0 = args_.grad_h0 + hidden;
    if (cell_.saved > 0) result.saved = args_.saved + d * rows_ * cell_.saved * H_;
    if (cell_.has_cell) {
      if (in_.c0) result.c0 = in_.c0 + cells;
      result.cells = args_.cells + d * rows_ * H_;
      if (args_.grad_c_n) result.grad_c_n = args_.grad_c_n + cells;
      if (args_.grad_c0) result.grad_c0 = args_.grad_c0 + cells;
    }
    result.delta = space_.delta[slot];
    result.exchange = space_.exchange[slot];
    result.carried = space_.carried[slot];
    result.signals = space_.signals[slot];
    result.counter = space_.counter[slot];
    result.reverse = in_.runs_back(d);
    return result;
  }

  Compute<S>* record_of(int d) const { return args_.record ? args_.record + d * rows_ * kRecorded : nullptr; }

  Status record(int d, int slot) {
    if (!args_.record) return {};
    RecordRows<Compute<S>> rows;
    rows.signals = space_.signals[slot], rows.rows = rows_;
    rows.count = cell_.signals, rows.H = static_cast<int>(H_);
    rows.bptt = bptt_, rows.record = record_of(d);
    return record_rows(rows, stream_);
  }

  Status gradients(int d, int slot) {
    DirectionGradients<S> of;
    of.direction = d;
    of.sequence = sequence_;
    of.x = x_;
    of.delta = space_.delta[slot];
    of.grad_hidden = space_.grad_hidden, of.cell_output = space_.cell_output;
    of.w_ih = space_.w_ih, of.h_prev = space_.h_prev, of.partial_sums = space_.partial_sums;
    return direction_gradients(cell_, args_, of, gemm_, stream_);
  }

  Status run_persistent() {
    ScanBackward<S> scan;
    scan.sequence = sequence_;
    scan.bptt = bptt_;
    scan.H = static_cast<int>(H_);
    scan.units = plan_.units, scan.columns = plan_.columns;
    scan.y_stride = y_stride_, scan.variant = in_.variant;
    for (int first = 0; first < in_.directions; first += plan_.directions) {
      for (int i = 0; i < plan_.directions; ++i) {
        scan.direction[i] = direction_of(first + i, i);
        RNNFAST_TRY(fill_zero(space_.counter[i], sizeof(unsigned), stream_));
      }
      RNNFAST_TRY(cell_.scan_backward(scan, plan_, stream_));
      for (int i = 0; i < plan_.directions; ++i) {
        RNNFAST_TRY(record(first + i, i));
        RNNFAST_TRY(gradients(first + i, i));
      }
    }
    return {};
  }

  Status run_steps(int d) {
    StepBackward<S> step;
    step.direction = direction_of(d, 0);
    step.sequence = sequence_;
    step.bptt = bptt_;
    step.record = record_of(d);
    step.y_stride = y_stride_;
    step.returned = space_.returned;
    step.hidden_factor = space_.hidden_factor, step.cell_factor = space_.cell_factor;
    step.grad_hidden = space_.grad_hidden, step.grad_output = space_.grad_output;
    step.cell_output = space_.cell_output;
    step.H = static_cast<int>(H_), step.P = static_cast<int>(P_);
    step.variant = in_.variant, step.reverse = in_.runs_back(d);
    for (int64_t p = seq_.T - 1; p >= 0; --p) {
      step.rows = step_rows(seq_, p, step.reverse);
      RNNFAST_TRY(run_step(d, step));
    }
    return {};
  }

  Status run_step(int d, const StepBackward<S>& step) {
    const StepRows& r = step.rows;
    const bool measures = bptt_.clip == Bptt::kNorm || step.record;
    if (measures) RNNFAST_TRY(cell_.step_hidden_norms(step, stream_));
    if (in_.projection) {
      RNNFAST_TRY(cell_.step_receive(step, stream_));
      RNNFAST_TRY(multiply(gemm_, stream_, r.active, H_, P_, Factor<S>{space_.grad_hidden + r.row * P_, P_},
                           Factor<S>{in_.weights[d].w_hr, H_}, space_.grad_output, H_, false));
    }
    if (measures && cell_.has_cell) RNNFAST_TRY(cell_.step_cell_norms(step, stream_));
    RNNFAST_TRY(cell_.step_backward(step, stream_));
    // delta U: to the step before, and for samples that begin here to h0.
    const int64_t stride = cell_.delta * H_;
    RNNFAST_TRY(multiply(gemm_, stream_, args_.grad_h0 ? r.active : r.had_step, P_, cell_.gates * H_,
                         Factor<S>{space_.delta[0] + r.row * stride + cell_.delta_recurrent * H_, stride},
                         Factor<S>{in_.weights[d].w_hh, P_}, space_.returned, P_, false));
    const bool initial = args_.grad_h0 || (cell_.has_cell && args_.grad_c0);
    return initial && r.had_step < r.active ? cell_.step_initial(step, stream_) : Status{};
  }

  const CudaCell<S>& cell_;
  const CudaBackward<S>& args_;
  const LayerInputs<S>& in_;
  const Sequence& seq_;
  const CudaPlan& plan_;
  const BackwardSpace<S> space_;
  const Bptt bptt_;
  const Gemm& gemm_;
  Stream stream_;
  const int64_t rows_, B_, H_, P_, y_stride_;
  DeviceSequence sequence_;
  Factor<S> x_{nullptr, 0};
};

Status check_bptt(const Bptt& bptt, const Sequence& sequence, const CudaPlan& plan) {
  constexpr const char* kOperation = "rnnfast layer backward";
  if (bptt.steps < 0) return {kOperation, "steps: expected 0 (no truncation) or more"};
  if (bptt.behind < 0) return {kOperation, "behind: expected 0 or more"};
  if (bptt.steps > 0 && sequence.offsets && !sequence.lengths)
    return {kOperation, "lengths: expected those of a packed batch that is to be truncated"};
  if (bptt.clip != Bptt::kNone && !(bptt.limit > 0)) return {kOperation, "limit: expected a positive number"};
  if (bptt.clip == Bptt::kNorm && plan.path == CudaPath::kPersistent)
    return {kOperation, "plan: limits by norm need the step path"};
  return {};
}

}  // namespace

template <class S>
size_t backward_workspace_bytes(CellKind cell, const CudaBackward<S>& args, const CudaPlan& plan) {
  return BackwardSpace<S>(cuda_cell<S>(cell), args, plan, nullptr).bytes;
}

template <class S>
Status layer_backward(CellKind kind, const CudaBackward<S>& args, const CudaPlan& plan, void* workspace,
                      const Gemm& gemm, Stream stream) {
  const CudaCell<S>& cell = cuda_cell<S>(kind);
  RNNFAST_TRY(check_layer("rnnfast layer backward", cell, args.in, plan, workspace));
  RNNFAST_TRY(check_bptt(args.bptt, args.in.sequence, plan));
  if (args.in.sequence.rows() == 0) return zero_gradients(cell, args, stream);
  return BackwardDriver<S>(cell, args, plan, workspace, gemm, stream).run();
}

#define RNNFAST_LAYER_BACKWARD(S)                                                                 \
  template size_t backward_workspace_bytes<S>(CellKind, const CudaBackward<S>&, const CudaPlan&); \
  template Status layer_backward<S>(CellKind, const CudaBackward<S>&, const CudaPlan&, void*, const Gemm&, Stream);
RNNFAST_LAYER_BACKWARD(float)
RNNFAST_LAYER_BACKWARD(double)
RNNFAST_LAYER_BACKWARD(Half)
RNNFAST_LAYER_BACKWARD(BFloat16)

}  // namespace RNNFAST_NAMESPACE
