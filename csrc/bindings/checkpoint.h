// SPDX-License-Identifier: Apache-2.0
// Recomputation (checkpoint_every): the forward pass keeps the states every so many steps only, in processing
// order; the backward pass runs segment by segment from the last to the first, each forward once more and then
// backward. Both passes run the ordinary kernels on one direction of one segment at a time, with the same plan, so
// that the recomputed values are the same bits. Memory: the states, and what one segment saves.
//
// float16 and bfloat16 (on CUDA; the CPU computes in float32): states and their gradients go from segment to
// segment in the dtype, as they do from call to call.
#pragma once

#include "bindings/layer_run.h"

namespace rnnfast {

// As the layer op with `save`: y, h_n, c_n; saved [D, kept, B, P] is h, cells [D, kept, B, H] is c (or shape [0]).
// Checked.
LayerResult forward_in_segments(const LayerCall& call, const LayerSizes& sizes, const LayerPasses& passes);

// As the backward op on what that kept; at least one row. grads: y, h_n, c_n; undefined where there is none.
LayerGradients backward_in_segments(const LayerCall& call, const LayerSizes& sizes, const LayerPasses& passes,
                                    const at::Tensor (&grads)[3], const at::Tensor& saved, const at::Tensor& cells,
                                    const c10::List<bool>& output_mask);

}  // namespace rnnfast
