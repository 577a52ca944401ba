// SPDX-License-Identifier: Apache-2.0
// Which tensors may go past the dispatcher: those behind which nothing but memory stands.
#pragma once

#include <ATen/EmptyTensor.h>
#include <ATen/PythonTorchFunctionTLS.h>
#include <ATen/core/Tensor.h>
#include <c10/core/impl/LocalDispatchKeySet.h>

#include <optional>

namespace rnnfast {

// Multiply-adds (some 5 us) from which other Python threads should get their turn: giving up the GIL and taking it
// again costs a few hundred ns at best, and a wait where others want it.
constexpr int64_t kLongWork = 200'000;

// An uninitialised CPU tensor.
inline at::Tensor empty_plain(at::IntArrayRef shape, at::ScalarType dtype) {
  return at::Tensor(at::detail::empty_cpu(shape, dtype, false, std::nullopt));
}

// Subclasses with a dispatch of their own (fake tensors), tensors of a transform (vmap, grad, jvp), lazy negation.
constexpr c10::DispatchKeySet kUnplainKeys({c10::DispatchKey::Python, c10::DispatchKey::PythonTLSSnapshot,
                                            c10::DispatchKey::FuncTorchBatched,
                                            c10::DispatchKey::BatchedNestedTensor,
                                            c10::DispatchKey::FuncTorchGradWrapper, c10::DispatchKey::Functionalize,
                                            c10::DispatchKey::Negative, c10::DispatchKey::Conjugate,
                                            c10::DispatchKey::ZeroTensor, c10::DispatchKey::Batched});

// A dense CPU tensor with memory of its own.
inline bool is_plain(const at::Tensor& t) {
  const c10::TensorImpl* impl = t.unsafeGetTensorImpl();
  return impl->is_cpu() && impl->layout() == at::kStrided && !impl->key_set().has_any(kUnplainKeys) &&
         impl->has_storage();
}

// No mode, transform, trace or autocast of this thread wants to see what is called.
inline bool nothing_watches() {
  const c10::impl::LocalDispatchKeySet tls = c10::impl::tls_local_dispatch_key_set();
  const c10::DispatchKeySet expected = c10::default_included_set;
  const bool included = (tls.included_ - expected).empty();
  // Autocast is excluded unless it is on.
  const bool autocast = !tls.excluded_.has(c10::DispatchKey::AutocastCPU);
  return included && !autocast && !at::impl::torch_function_mode_enabled();
}

}  // namespace rnnfast
