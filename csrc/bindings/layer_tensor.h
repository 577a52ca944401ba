// SPDX-License-Identifier: Apache-2.0
// A layer in differentiable tensor operations: the same cell headers, instantiated on tensors. Where it runs:
// inside double backward (and higher derivatives), and in forward-mode differentiation. Slow, and right to any
// order.
#pragma once

#include "bindings/layer_ops.h"

namespace rnnfast {

struct TensorLayer {
  at::Tensor y, h_n, c_n;   // c_n: shape [0] for cells without c
  at::Tensor saved, cells;  // as the layer op has them; undefined where not asked for
};

TensorLayer layer_of_tensors(const LayerCall& call, bool save);

}  // namespace rnnfast
