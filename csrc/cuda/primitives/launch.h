// SPDX-License-Identifier: Apache-2.0
// How the host starts kernels: no allocation, no synchronisation, every error reported.
#pragma once

#include "cuda/primitives/platform.h"

#if defined(__CUDACC__) || defined(RNNFAST_CUDA)
#include <cuda_runtime_api.h>
#endif

namespace RNNFAST_NAMESPACE {

#if defined(__CUDACC__) || defined(RNNFAST_CUDA)
using Stream = cudaStream_t;
#else
using Stream = emulator::Stream;
#endif

// What went wrong, in words, or success. `text` lives as long as the process.
struct Status {
  const char* operation = nullptr;  // null: success
  const char* text = nullptr;
  explicit operator bool() const { return operation == nullptr; }
};

// A cooperative launch that was refused; nothing of it has run.
inline constexpr const char* kTooManyBlocks =
    "too many blocks in cooperative launch: this process may use fewer multiprocessors than the device reports "
    "(a green context, a share of MPS); RNNFAST_CUDA_PATH=step takes the path that needs no such launch";

#define RNNFAST_TRY(call)                                       \
  do {                                                          \
    const ::RNNFAST_NAMESPACE::Status rnnfast_status_ = (call); \
    if (!rnnfast_status_) return rnnfast_status_;               \
  } while (false)

struct Launch {
  int grid_x = 1, grid_y = 1, block = kWarp;  // block: threads
  int max_threads = kWarp;                    // of the kernel's RNNFAST_KERNEL
  int shared_bytes = 0;                       // dynamic
  bool cooperative = false;                   // all blocks resident at once
};

#if defined(__CUDACC__) || defined(RNNFAST_CUDA)

inline Status status_of(cudaError_t error, const char* operation) {
  if (error == cudaSuccess) return {};
  (void)cudaGetLastError();  // reported here; the next launch of somebody else must not find it
  // The plan counts on every multiprocessor that the device reports.
  if (error == cudaErrorCooperativeLaunchTooLarge) return {operation, kTooManyBlocks};
  return {operation, cudaGetErrorString(error)};
}

template <class P>
Status launch(void (*kernel)(P), const Launch& l, const P& params, Stream stream) {
  const void* const function = reinterpret_cast<const void*>(kernel);
  if (l.shared_bytes > 48 * 1024)  // more than that must be asked for
    RNNFAST_TRY(
        status_of(cudaFuncSetAttribute(function, cudaFuncAttributeMaxDynamicSharedMemorySize, l.shared_bytes),
                  "cudaFuncSetAttribute"));
  const dim3 grid(static_cast<unsigned>(l.grid_x), static_cast<unsigned>(l.grid_y));
  const dim3 block(static_cast<unsigned>(l.block));
  void* arguments[] = {const_cast<P*>(&params)};
  const size_t shared = static_cast<size_t>(l.shared_bytes);
  if (l.cooperative)
    return status_of(cudaLaunchCooperativeKernel(function, grid, block, arguments, shared, stream),
                     "cudaLaunchCooperativeKernel");
  return status_of(cudaLaunchKernel(function, grid, block, arguments, shared, stream), "cudaLaunchKernel");
}

inline Status fill_zero(void* p, size_t bytes, Stream stream) {
  return status_of(cudaMemsetAsync(p, 0, bytes, stream), "cudaMemsetAsync");
}

#else

template <class P>
Status launch(void (*kernel)(P), const Launch& l, const P& params, Stream stream) {
  const emulator::Shape shape{l.grid_x, l.grid_y, l.block, l.max_threads, l.shared_bytes, l.cooperative};
  const emulator::Outcome outcome =
      emulator::launch(shape, [&] { kernel(params); }, stream, __PRETTY_FUNCTION__);  // names P
  return outcome.text ? Status{outcome.operation, outcome.text} : Status{};
}

inline Status fill_zero(void* p, size_t bytes, Stream) {
  __builtin_memset(p, 0, bytes);
  return {};
}

#endif

}  // namespace RNNFAST_NAMESPACE
