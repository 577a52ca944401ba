// SPDX-License-Identifier: Apache-2.0
// The forward pass of a layer on a device. Products: x W_ih^T over all rows, 2 N I G H flops; step path: each step
// 2 B G H P, and with a projection 2 B H P.
#include "cuda/footprint.h"
#include "cuda/layer_parts.h"
#include "cuda/rows.h"

namespace RNNFAST_NAMESPACE {
namespace {

template <class S>
struct ForwardSpace {
  using V = Compute<S>;
  S* x = nullptr;  // [N, I], where x is copied
  // Where gates_x do not stand in `saved`: [N, G*H]; step path: of the rows of `chunk_steps` steps.
  V* gates[2] = {nullptr, nullptr};
  int64_t chunk_steps = 0;
  V* carried[2] = {nullptr, nullptr};         // [B, H]
  V* recurrent = nullptr;                     // step path, apart gates: [B, G*H]
  S* cell_output = nullptr;                   // step path, projection: [B, H]
  S* hidden[2] = {nullptr, nullptr};          // persistent path: exchanged h, footprint.h
  unsigned* counter[2] = {nullptr, nullptr};  // persistent path
  SequenceSpace sequence;                     // persistent path
  bool gates_in_saved = false;
  size_t bytes = 0;

  ForwardSpace(const CudaCell<S>& cell, const CudaForward<S>& args, const CudaPlan& plan, void* base) {
    const LayerInputs<S>& in = args.in;
    const int64_t N = in.sequence.rows(), B = in.sequence.B, H = in.H, T = in.sequence.T;
    const bool persistent = plan.path == CudaPath::kPersistent;
    Arena arena(base);
    gates_in_saved = args.training && cell.saved >= cell.gates;
    chunk_steps = persistent || gates_in_saved ? T : chunk_of(T, B);
    if (!rows_at_one_distance(in)) x = arena.take<S>(N * in.I);
    for (int i = 0; i < (persistent ? plan.directions : 1); ++i) {
      const int64_t most = chunk_steps * B;  // rows
      if (!gates_in_saved) gates[i] = arena.take<V>((N < most ? N : most) * cell.gates * H);
      if (cell.carries_forward) carried[i] = arena.take<V>(B * H);
      if (!persistent) continue;
      hidden[i] = arena.take<S>(hidden_elements(B, H, sizeof(S)));
      counter[i] = arena.take<unsigned>(1);
    }
    if (persistent) {
      sequence.take(arena, in.sequence, false);
    } else {
      if (cell.apart) recurrent = arena.take<V>(B * cell.gates * H);
      if (in.projection) cell_output = arena.take<S>(B * H);
    }
    bytes = arena.used();
  }

  // Enough rows for a library's product to run at its full speed, few enough for long sequences to need no more
  // space.
  static int64_t chunk_of(int64_t T, int64_t B) {
    constexpr int64_t kRows = 16384;
    const int64_t steps = B > 0 && B < kRows ? kRows / B : 1;
    return steps < T ? steps : T;
  }
};

template <class S>
class ForwardDriver {
  using V = Compute<S>;

 public:
  ForwardDriver(const CudaCell<S>& cell, const CudaForward<S>& args, const CudaPlan& plan, void* workspace,
                const Gemm& gemm, Stream stream)
      : cell_(cell),
        args_(args),
        in_(args.in),
        seq_(args.in.sequence),
        plan_(plan),
        space_(cell, args, plan, workspace),
        gemm_(gemm),
        stream_(stream),
        rows_(seq_.rows()),
        B_(seq_.B),
        H_(in_.H),
        P_(in_.P),
        y_stride_(in_.directions * in_.P) {}

  Status run() {
    RNNFAST_TRY(input_rows(in_, space_.x, x_, stream_));
    if (plan_.path == CudaPath::kPersistent) return run_persistent();
    for (int d = 0; d < in_.directions; ++d)
      for (int64_t begin = 0; begin < seq_.T; begin += space_.chunk_steps) {
        const Chunk chunk = chunk_from(begin, in_.runs_back(d));
        RNNFAST_TRY(project(d, 0, chunk));
        RNNFAST_TRY(in_.projection ? run_steps_projected(d, chunk) : run_steps(d, chunk));
      }
    return {};
  }

 private:
  // slot: which of the workspace's pieces it uses.
  ScanForwardDirection<S> direction_of(int d, int slot) const {
    const LayerWeights<S>& w = in_.weights[d];
    ScanForwardDirection<S> result;
    result.w_hh = w.w_hh, result.b_ih = w.b_ih, result.b_hh = w.b_hh;
    if (in_.h0) result.h0 = in_.h0 + d * B_ * P_;
    result.h_n = args_.h_n + d * B_ * P_;
    if (cell_.has_cell) {
      if (in_.c0) result.c0 = in_.c0 + d * B_ * H_;
      result.c_n = args_.c_n + d * B_ * H_;
    }
    result.y = args_.y + d * P_;
    if (args_.training && cell_.saved > 0) result.saved = args_.saved + d * rows_ * cell_.saved * H_;
    if (args_.training && cell_.has_cell) result.cells = args_.cells + d * rows_ * H_;
    result.gates_x = gates_of(d, slot), result.gates_stride = gates_stride();
    result.hidden = space_.hidden[slot];
    result.carried = space_.carried[slot];
    result.counter = space_.counter[slot];
    result.reverse = in_.runs_back(d);
    return result;
  }

  // Where gates_x are written, and on the step path the recurrent product is added: in training where the saved
  // values will replace them.
  V* gates_of(int d, int slot) const {
    return space_.gates_in_saved ? args_.saved + d * rows_ * cell_.saved * H_ : space_.gates[slot];
  }
  int64_t gates_stride() const { return (space_.gates_in_saved ? cell_.saved : cell_.gates) * H_; }

  // Steps [begin, end) in processing order, whose input is projected at once.
  struct Chunk {
    int64_t begin, end;
    int64_t first_row, rows;
  };
  Chunk chunk_from(int64_t begin, bool reverse) const {
    const int64_t steps = seq_.T - begin < space_.chunk_steps ? seq_.T - begin : space_.chunk_steps;
    const int64_t t = Sequence::time_of(reverse ? begin + steps - 1 : begin, seq_.T, reverse);
    return {begin, begin + steps, seq_.first_row(t), seq_.first_row(t + steps) - seq_.first_row(t)};
  }
  // Where a row's gates_x stand among gates_of().
  int64_t gates_row(const Chunk& chunk, int64_t row) const {
    return space_.gates_in_saved ? row : row - chunk.first_row;
  }

  Status project(int d, int slot, const Chunk& chunk) {
    return multiply(gemm_, stream_, chunk.rows, cell_.gates * H_, in_.I,
                    Factor<S>{x_.data + chunk.first_row * x_.ld, x_.ld},
                    Factor<S>{in_.weights[d].w_ih, in_.I, true},
                    gates_of(d, slot) + gates_row(chunk, chunk.first_row) * gates_stride(), gates_stride(), false);
  }

  Status run_persistent() {
    ScanForward<S> scan;
    RNNFAST_TRY(device_sequence(seq_, space_.sequence, scan.sequence, stream_));
    scan.H = static_cast<int>(H_);
    scan.units = plan_.units, scan.columns = plan_.columns;
    scan.y_stride = y_stride_, scan.variant = in_.variant;
    for (int first = 0; first < in_.directions; first += plan_.directions) {
      for (int i = 0; i < plan_.directions; ++i) {
        scan.direction[i] = direction_of(first + i, i);
        RNNFAST_TRY(project(first + i, i, chunk_from(0, false)));
        RNNFAST_TRY(fill_zero(space_.counter[i], sizeof(unsigned), stream_));
      }
      RNNFAST_TRY(cell_.scan_forward(scan, plan_, stream_));
    }
    return {};
  }

  // U h_{t-1}: added to gates_x, or by itself where gates want it apart. How many samples have it goes to `step`.
  Status multiply_recurrent(int d, StepForward<S>& step) {
    const StepRows& r = step.rows;
    const ScanForwardDirection<S>& direction = step.direction;
    const int64_t columns = cell_.gates * H_;
    V* const to = cell_.apart ? space_.recurrent : gates_of(d, 0) + step.gates_row * gates_stride();
    const int64_t ld = cell_.apart ? columns : gates_stride();
    const Factor<S> weights{direction.w_hh, P_, true};
    RNNFAST_TRY(multiply(gemm_, stream_, r.had_step, columns, P_,
                         Factor<S>{direction.y + r.before * y_stride_, y_stride_}, weights, to, ld, !cell_.apart));
    int64_t begin = 0;  // samples whose first step this is
    if (direction.h0) {
      begin = r.active - r.had_step;
      RNNFAST_TRY(multiply(gemm_, stream_, begin, columns, P_, Factor<S>{direction.h0 + r.had_step * P_, P_},
                           weights, to + r.had_step * ld, ld, !cell_.apart));
    }
    step.recurrent = space_.recurrent;
    step.recurrent_rows = cell_.apart ? static_cast<int>(r.had_step + begin) : 0;
    return {};
  }

  StepForward<S> first_step(int d) const {
    StepForward<S> step;
    step.direction = direction_of(d, 0);
    step.H = static_cast<int>(H_);
    step.variant = in_.variant;
    return step;
  }
  void go_to(StepForward<S>& step, const Chunk& chunk, int64_t p) const {
    step.rows = step_rows(seq_, p, step.direction.reverse);
    step.gates_row = gates_row(chunk, step.rows.row);
  }

  Status run_steps(int d, const Chunk& chunk) {
    StepForward<S> step = first_step(d);
    step.output_stride = y_stride_;
    for (int64_t p = chunk.begin; p < chunk.end; ++p) {
      go_to(step, chunk, p);
      step.output = step.direction.y + step.rows.row * y_stride_;
      RNNFAST_TRY(multiply_recurrent(d, step));
      RNNFAST_TRY(cell_.step_forward(step, stream_));
    }
    return {};
  }

  // h_t = W_hr (cell's output), a second product of the step.
  Status run_steps_projected(int d, const Chunk& chunk) {
    StepForward<S> step = first_step(d);
    S* const h_n = step.direction.h_n;
    step.direction.h_n = nullptr;
    step.output = space_.cell_output;
    step.output_stride = H_;
    for (int64_t p = chunk.begin; p < chunk.end; ++p) {
      go_to(step, chunk, p);
      const StepRows& r = step.rows;
      RNNFAST_TRY(multiply_recurrent(d, step));
      RNNFAST_TRY(cell_.step_forward(step, stream_));
      S* const y = step.direction.y + r.row * y_stride_;
      RNNFAST_TRY(multiply(gemm_, stream_, r.active, P_, H_, Factor<S>{space_.cell_output, H_},
                           Factor<S>{in_.weights[d].w_hr, H_, true}, y, y_stride_, false));
      CopyRows<S> last;  // samples that end here
      last.from = y + r.has_next * y_stride_, last.outer_stride = y_stride_;
      last.to = h_n + r.has_next * P_;
      last.rows = r.active - r.has_next, last.columns = static_cast<int>(P_);
      RNNFAST_TRY(copy_rows(last, stream_));
    }
    return {};
  }

  const CudaCell<S>& cell_;
  const CudaForward<S>& args_;
  const LayerInputs<S>& in_;
  const Sequence& seq_;
  const CudaPlan& plan_;
  const ForwardSpace<S> space_;
  const Gemm& gemm_;
  Stream stream_;
  const int64_t rows_, B_, H_, P_, y_stride_;
  Factor<S> x_{nullptr, 0};
};

}  // namespace

template <class S>
size_t forward_workspace_bytes(CellKind cell, const CudaForward<S>& args, const CudaPlan& plan) {
  return ForwardSpace<S>(cuda_cell<S>(cell), args, plan, nullptr).bytes;
}

template <class S>
Status layer_forward(CellKind kind, const CudaForward<S>& args, const CudaPlan& plan, void* workspace,
                     const Gemm& gemm, Stream stream) {
  const CudaCell<S>& cell = cuda_cell<S>(kind);
  RNNFAST_TRY(check_layer("rnnfast layer forward", cell, args.in, plan, workspace));
  if (args.in.sequence.rows() == 0) return {};  // no samples: every output is empty
  return ForwardDriver<S>(cell, args, plan, workspace, gemm, stream).run();
}

#define RNNFAST_LAYER_FORWARD(S)                                                                \
  template size_t forward_workspace_bytes<S>(CellKind, const CudaForward<S>&, const CudaPlan&); \
  template Status layer_forward<S>(CellKind, const CudaForward<S>&, const CudaPlan&, void*, const Gemm&, Stream);
RNNFAST_LAYER_FORWARD(float)
RNNFAST_LAYER_FORWARD(double)
RNNFAST_LAYER_FORWARD(Half)
RNNFAST_LAYER_FORWARD(BFloat16)

}  // namespace RNNFAST_NAMESPACE
