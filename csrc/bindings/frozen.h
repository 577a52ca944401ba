// SPDX-License-Identifier: Apache-2.0
// A layer whose weights were packed once: inference without packing, without autograd and without the dispatcher.
#pragma once

#include <string>

#include "bindings/layer_checks.h"
#include "cpu/kernels.h"

namespace rnnfast {

// A snapshot: later changes of the weights are not seen. Bound to the instruction set in use when it was made. May
// be used from several threads at once.
class FrozenLayer {
 public:
  FrozenLayer(CellKind kind, const std::vector<at::Tensor>& weights, bool has_biases, bool bidirectional);

  // x [T, B, I] or [N, I] with batch_sizes, of the dtype of the weights; h0, c0 as the layer ops. Returns y, h_n,
  // c_n.
  std::tuple<at::Tensor, at::Tensor, at::Tensor> forward(const at::Tensor& x, const OptionalTensor& h0,
                                                         const OptionalTensor& c0,
                                                         const OptionalTensor& batch_sizes) const;

  int64_t bytes() const { return int64_t(packed_.nbytes()); }

 private:
  CellKind kind_;
  std::string name_;
  const Kernels& target_;
  at::ScalarType dtype_;
  LayerSizes sizes_;   // what the weights tell: I, H, P, directions, projection
  at::Tensor packed_;  // [D, PackedSpace::size], float32 or float64
};

// Throws std::invalid_argument that names the cells there are.
CellKind cell_named(const std::string& name);

}  // namespace rnnfast
