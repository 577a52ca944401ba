// SPDX-License-Identifier: Apache-2.0
// The layer ops under torch.func.vmap.
#include <ATen/functorch/BatchedTensorImpl.h>
#include <torch/library.h>

#include "bindings/layer_batching.h"

namespace rnnfast {
namespace {

// torch.func.vmap.
struct FunctorchBatching {
  static constexpr c10::DispatchKey kKey = c10::DispatchKey::FuncTorchBatched;
  static std::optional<Batching> of(const at::Tensor& t) {
    const auto* batched = at::functorch::maybeGetBatchedImpl(t);
    if (!batched) return std::nullopt;
    return Batching{batched->level(), batched->bdim(), batched->value()};
  }
  static at::Tensor wrap(const at::Tensor& t, int64_t level) { return at::functorch::makeBatched(t, 0, level); }
};

}  // namespace

#define RNNFAST_MECHANISM FunctorchBatching
TORCH_LIBRARY_IMPL(rnnfast, FuncTorchBatched, m) { RNNFAST_CELLS(RNNFAST_IMPLEMENT_BATCHED) }

}  // namespace rnnfast
