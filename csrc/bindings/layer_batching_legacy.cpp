// SPDX-License-Identifier: Apache-2.0
// The layer ops under the older vmap, which cannot be included beside the newer.
#include <ATen/LegacyBatchedTensorImpl.h>
#include <torch/library.h>

#include "bindings/layer_batching.h"

namespace rnnfast {
namespace {

// torch.autograd.grad(is_grads_batched=True), torch.autograd.functional.jacobian(vectorize=True).
struct LegacyBatching {
  static constexpr c10::DispatchKey kKey = c10::DispatchKey::Batched;
  static std::optional<Batching> of(const at::Tensor& t) {
    const auto* batched = at::maybeGetBatchedImpl(t);
    if (!batched) return std::nullopt;
    TORCH_CHECK(batched->bdims().size() == 1, "rnnfast: batched gradients: expected one level, got ",
                batched->bdims().size(), "; torch.func.vmap can be nested");
    return Batching{batched->bdims()[0].level(), batched->bdims()[0].dim(), batched->value()};
  }
  static at::Tensor wrap(const at::Tensor& t, int64_t level) { return at::addBatchDim(t, level, 0); }
};

}  // namespace

#define RNNFAST_MECHANISM LegacyBatching
TORCH_LIBRARY_IMPL(rnnfast, Batched, m) { RNNFAST_CELLS(RNNFAST_IMPLEMENT_BATCHED) }

}  // namespace rnnfast
