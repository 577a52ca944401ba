// SPDX-License-Identifier: Apache-2.0
// A stack of layers whose weights were packed once: inference without packing, without autograd and without the
// dispatcher, all layers in one call.
#pragma once

#include <string>
#include <vector>

#include "bindings/layer_checks.h"
#include "cpu/stack.h"

namespace rnnfast {

// A snapshot: later changes of the weights are not seen. Bound to the instruction set in use when it was made. May
// be used from several threads at once.
class FrozenStack {
 public:
  // layers: the weights of each, as the layer ops have them.
  FrozenStack(CellKind kind, const std::vector<std::vector<at::Tensor>>& layers, bool has_biases,
              bool bidirectional);

  // x [T, B, I] or [N, I] with batch_sizes, of the dtype of the weights; h0, c0 [L*D, B, .]. Returns y, h_n, c_n.
  std::tuple<at::Tensor, at::Tensor, at::Tensor> forward(const at::Tensor& x, const OptionalTensor& h0,
                                                         const OptionalTensor& c0,
                                                         const OptionalTensor& batch_sizes) const;

  int64_t bytes() const;
  CellKind kind() const { return kind_; }
  const Kernels& target() const { return target_; }
  at::ScalarType dtype() const { return dtype_; }              // of the weights given
  at::ScalarType inner_dtype() const { return inner_dtype_; }  // of the packed ones
  const LayerSizes& sizes() const { return sizes_; }           // of the first layer, but for T and B
  int count() const { return int(packed_.size()); }

  // The packed layers of a StackCall; T must be inner_dtype.
  template <class T>
  std::vector<StackLayer<T>> layers() const;

 private:
  std::tuple<at::Tensor, at::Tensor, at::Tensor> forward_reduced(const at::Tensor& x, const OptionalTensor& h0,
                                                                 const OptionalTensor& c0,
                                                                 const LayerSizes& sizes) const;
  std::tuple<at::Tensor, at::Tensor, at::Tensor> run(const at::Tensor& x, const OptionalTensor& h0,
                                                     const OptionalTensor& c0, const LayerSizes& sizes) const;

  CellKind kind_;
  std::string name_;
  const Kernels& target_;
  at::ScalarType dtype_, inner_dtype_;
  LayerSizes sizes_;
  std::vector<at::Tensor> packed_;  // each [D, PackedSpace::size]
};

// Plans and runs a call, in a workspace of the calling thread.
template <class T>
void call_stack(const Kernels& target, const StackCall<T>& call);

// The first layer of a call, for the plan.
template <class T>
LayerShape shape_of(const StackCall<T>& call);

extern template void call_stack<float>(const Kernels&, const StackCall<float>&);
extern template void call_stack<double>(const Kernels&, const StackCall<double>&);
extern template LayerShape shape_of<float>(const StackCall<float>&);
extern template LayerShape shape_of<double>(const StackCall<double>&);
extern template std::vector<StackLayer<float>> FrozenStack::layers<float>() const;
extern template std::vector<StackLayer<double>> FrozenStack::layers<double>() const;

// Throws std::invalid_argument that names the cells there are.
CellKind cell_named(const std::string& name);

}  // namespace rnnfast
