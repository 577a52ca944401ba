// SPDX-License-Identifier: Apache-2.0
// A layer op besides its kernels, the same on every device: outputs, recomputation, checking, recording.
#pragma once

#include "bindings/layer_ops.h"
#include "bindings/run.h"

namespace rnnfast {

// A device's passes; tensors are on it, checked, with at least one row.
struct LayerPasses {
  void (*forward)(CellKind kind, const LayerSizes& sizes, const HeldInputs& held, const LayerOutputs& out,
                  bool training);
  void (*backward)(CellKind kind, const LayerSizes& sizes, const HeldInputs& held, const BackwardTensors& tensors);
};

// What the ops return. float16 and bfloat16 as the passes take them.
LayerResult run_layer(const LayerCall& call, const LayerSizes& sizes, const LayerPasses& passes, bool save);
LayerGradients run_layer_backward(const LayerCall& call, const LayerSizes& sizes, const LayerPasses& passes,
                                  const OptionalTensor& grad_y, const OptionalTensor& grad_h_n,
                                  const OptionalTensor& grad_c_n, const at::Tensor& y, const at::Tensor& saved,
                                  const at::Tensor& cells, const c10::List<bool>& output_mask);

// A backward pass, with what is recorded of it where the call checks or `flow` is defined: that record, on the CPU;
// else an undefined tensor. flow: filled in, of these steps.
at::Tensor run_recorded(const LayerCall& call, const LayerSizes& sizes, const LayerPasses& passes,
                        const HeldInputs& held, BackwardTensors& tensors, const at::Tensor& flow);

}  // namespace rnnfast
