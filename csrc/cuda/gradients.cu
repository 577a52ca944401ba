// SPDX-License-Identifier: Apache-2.0
#include "cuda/gradients.h"

#include "cuda/rows.h"

namespace RNNFAST_NAMESPACE {
namespace {

// Neighbouring blocks of delta that belong to neighbouring gates of W_ih.
struct Run {
  int64_t block, gate, blocks;
};

template <class S>
class GradientDriver {
 public:
  GradientDriver(const CudaCell<S>& cell, const CudaBackward<S>& args, const DirectionGradients<S>& of,
                 const Gemm& gemm, Stream stream)
      : cell_(cell),
        args_(args),
        in_(args.in),
        of_(of),
        gemm_(gemm),
        stream_(stream),
        d_(of.direction),
        rows_(in_.sequence.rows()),
        B_(in_.sequence.B),
        H_(in_.H),
        I_(in_.I),
        P_(in_.P),
        y_stride_(in_.directions * in_.P),
        delta_stride_(cell.delta * in_.H) {}

  Status run() {
    const Run runs[2] = {{0, cell_.first_gate, cell_.gates - cell_.first_gate},
                         {cell_.gates - cell_.first_gate, 0, cell_.first_gate}};
    if (args_.grad_x) RNNFAST_TRY(input_gradient(runs));
    for (const Run& run : runs)
      if (args_.grad_w_ih[d_])
        RNNFAST_TRY(multiply(gemm_, stream_, run.blocks * H_, I_, rows_,
                             Factor<S>{of_.delta + run.block * H_, delta_stride_, true}, of_.x,
                             args_.grad_w_ih[d_] + run.gate * H_ * I_, I_, false));
    if (args_.grad_w_hh[d_]) RNNFAST_TRY(in_.sequence.offsets ? recurrent_gradient_packed() : recurrent_gradient());
    if (args_.grad_w_hr[d_])
      RNNFAST_TRY(multiply(gemm_, stream_, P_, H_, rows_, Factor<S>{of_.grad_hidden, P_, true},
                           Factor<S>{of_.cell_output, H_}, args_.grad_w_hr[d_], H_, false));
    return bias_sums();
  }

 private:
  Status input_gradient(const Run (&runs)[2]) {
    const S* weights = in_.weights[d_].w_ih;
    if (needs_rotated_weights(cell_, args_)) {
      for (const Run& run : runs) {
        CopyRows<S> copy;
        copy.from = weights + run.gate * H_ * I_, copy.outer_stride = I_;
        copy.to = of_.w_ih + run.block * H_ * I_;
        copy.rows = run.blocks * H_, copy.columns = static_cast<int>(I_);
        RNNFAST_TRY(copy_rows(copy, stream_));
      }
      weights = of_.w_ih;
    }
    return multiply(gemm_, stream_, rows_, I_, cell_.gates * H_, Factor<S>{of_.delta, delta_stride_},
                    Factor<S>{weights, I_}, args_.grad_x, I_, d_ == 1);
  }

  Status recurrent_product(const S* delta, const Factor<S>& hidden, int64_t rows, bool accumulate) {
    return multiply(gemm_, stream_, cell_.gates * H_, P_, rows,
                    Factor<S>{delta + cell_.delta_recurrent * H_, delta_stride_, true}, hidden, args_.grad_w_hh[d_],
                    P_, accumulate);
  }

  // Dense: h_{t-1} are y's own rows a step away, and h0 at the first step.
  Status recurrent_gradient() {
    const bool reverse = in_.runs_back(d_);
    const int64_t later = rows_ - B_;  // rows with a step before
    const S* const y = args_.y + d_ * P_;
    const S* const delta_first = of_.delta + (reverse ? later : 0) * delta_stride_;
    const S* const delta_later = of_.delta + (reverse ? 0 : B_) * delta_stride_;
    if (in_.h0) RNNFAST_TRY(recurrent_product(delta_first, Factor<S>{in_.h0 + d_ * B_ * P_, P_}, B_, false));
    if (later > 0)
      return recurrent_product(delta_later, Factor<S>{y + (reverse ? B_ : 0) * y_stride_, y_stride_}, later,
                               in_.h0 != nullptr);
    if (in_.h0) return {};
    return fill_zero(args_.grad_w_hh[d_], static_cast<size_t>(cell_.gates * H_ * P_) * sizeof(S), stream_);
  }

  Status recurrent_gradient_packed() {
    PreviousHidden<S> gather;
    gather.sequence = of_.sequence;
    gather.y = args_.y + d_ * P_, gather.y_stride = y_stride_;
    if (in_.h0) gather.h0 = in_.h0 + d_ * B_ * P_;
    gather.reverse = in_.runs_back(d_);
    gather.to = of_.h_prev, gather.rows = rows_, gather.columns = static_cast<int>(P_);
    RNNFAST_TRY(previous_hidden(gather, stream_));
    return recurrent_product(of_.delta, Factor<S>{of_.h_prev, P_}, rows_, false);
  }

  Status bias_sums() {
    if (!args_.grad_b_ih[d_] && !args_.grad_b_hh[d_]) return {};
    BiasGradients<S> sums;
    sums.delta = of_.delta, sums.rows = rows_, sums.H = static_cast<int>(H_);
    sums.blocks = cell_.delta, sums.gates = cell_.gates;
    sums.recurrent = cell_.delta_recurrent, sums.first_gate = cell_.first_gate;
    sums.partial = of_.partial_sums;
    sums.grad_b_ih = args_.grad_b_ih[d_], sums.grad_b_hh = args_.grad_b_hh[d_];
    return bias_gradients(sums, stream_);
  }

  const CudaCell<S>& cell_;
  const CudaBackward<S>& args_;
  const LayerInputs<S>& in_;
  const DirectionGradients<S>& of_;
  const Gemm& gemm_;
  Stream stream_;
  const int d_;
  const int64_t rows_, B_, H_, I_, P_, y_stride_, delta_stride_;
};

}  // namespace

template <class S>
Status direction_gradients(const CudaCell<S>& cell, const CudaBackward<S>& args, const DirectionGradients<S>& of,
                           const Gemm& gemm, Stream stream) {
  return GradientDriver<S>(cell, args, of, gemm, stream).run();
}

template <class S>
Status zero_gradients(const CudaCell<S>& cell, const CudaBackward<S>& args, Stream stream) {
  const LayerInputs<S>& in = args.in;
  const int64_t rows = cell.gates * in.H;
  for (int d = 0; d < in.directions; ++d) {
    const struct {
      S* data;
      int64_t size;
    } all[] = {{args.grad_w_ih[d], rows * in.I},
               {args.grad_w_hh[d], rows * in.P},
               {args.grad_b_ih[d], rows},
               {args.grad_b_hh[d], rows},
               {args.grad_w_hr[d], in.P * in.H}};
    for (const auto& gradient : all)
      if (gradient.data)
        RNNFAST_TRY(fill_zero(gradient.data, static_cast<size_t>(gradient.size) * sizeof(S), stream));
  }
  return {};
}

#define RNNFAST_GRADIENTS(S)                                                                                       \
  template Status direction_gradients<S>(const CudaCell<S>&, const CudaBackward<S>&, const DirectionGradients<S>&, \
                                         const Gemm&, Stream);                                                     \
  template Status zero_gradients<S>(const CudaCell<S>&, const CudaBackward<S>&, Stream);
RNNFAST_GRADIENTS(float)
RNNFAST_GRADIENTS(double)
RNNFAST_GRADIENTS(Half)
RNNFAST_GRADIENTS(BFloat16)

}  // namespace RNNFAST_NAMESPACE
