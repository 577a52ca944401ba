// SPDX-License-Identifier: Apache-2.0
// The backward pass's products over all rows of a direction, once its delta stands:
//   dx = delta_x W_ih        dW_ih = delta_x^T x        dW_hh = delta_u^T h_prev        db = sums of delta
//   with a projection: dW_hr = (dL/dh)^T (cell's output)
// delta_x and delta_u are the blocks of delta that belong to the input's and to the recurrent share of the
// pre-activations. Flops: 2 N G H (2 I + P), and with a projection 2 N H P. Bytes, sizeof(S) each, of products that
// read each factor once: N (3 G H + 2 I + P) and G H (2 I + P), with a projection N (H + P) + H P; the sums read
// N kDelta H.
#pragma once

#include "cuda/layer_parts.h"

namespace RNNFAST_NAMESPACE {

template <class S>
struct DirectionGradients {
  int direction = 0;
  DeviceSequence sequence;
  Factor<S> x{nullptr, 0};             // [N, I], where dW_ih is asked for
  const S* delta = nullptr;            // [N, kDelta*H]
  const S* grad_hidden = nullptr;      // projection: [N, P]
  const S* cell_output = nullptr;      // projection: [N, H]
  S* w_ih = nullptr;                   // space: [G*H, I], where needs_rotated_weights
  S* h_prev = nullptr;                 // space: [N, P], where needs_previous_hidden
  Compute<S>* partial_sums = nullptr;  // space: [bias_chunks(N), kDelta*H], where biases' gradients are asked for
};

// Whether the blocks of delta_x are in another order than the gates of W_ih: then dx is the product with a copy of
// W_ih in delta's order. (Two products, one adding to the other's result, would round a 16-bit dx twice.)
template <class S>
bool needs_rotated_weights(const CudaCell<S>& cell, const CudaBackward<S>& args) {
  return cell.first_gate != 0 && args.grad_x != nullptr;
}
// Whether h_{t-1} of all rows must be gathered: where they are not y's own rows, shifted by a step.
template <class S>
bool needs_previous_hidden(const CudaBackward<S>& args) {
  return args.in.sequence.offsets && (args.grad_w_hh[0] || args.grad_w_hh[1]);
}
template <class S>
bool needs_bias_sums(const CudaBackward<S>& args) {
  return args.grad_b_ih[0] || args.grad_b_hh[0] || args.grad_b_ih[1] || args.grad_b_hh[1];
}

// Of one direction. dx of direction 1 is added to that of direction 0.
template <class S>
Status direction_gradients(const CudaCell<S>& cell, const CudaBackward<S>& args, const DirectionGradients<S>& of,
                           const Gemm& gemm, Stream stream);

// All weights' gradients, zero: of a batch without samples.
template <class S>
Status zero_gradients(const CudaCell<S>& cell, const CudaBackward<S>& args, Stream stream);

}  // namespace RNNFAST_NAMESPACE
