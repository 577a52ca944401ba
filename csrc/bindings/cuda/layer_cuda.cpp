// SPDX-License-Identifier: Apache-2.0
// The ops on CUDA tensors: checks, allocation by torch's caching allocator, torch's current stream on x's device,
// the plan. Nothing here waits for the device but checking and recording, so a CUDA graph may capture a call;
// batch_sizes then are part of the graph.
#include <ATen/Context.h>
#include <ATen/cuda/CUDAContext.h>
#include <c10/core/DeviceGuard.h>
#include <c10/cuda/CUDAGraphsC10Utils.h>
#include <torch/library.h>

#include "bindings/cuda/gemm.h"
#include "bindings/explain_cuda.h"
#include "bindings/layer_run.h"
#include "bindings/recorder.h"
#include "cuda/layer.h"

namespace rnnfast {
namespace {

CudaDevice this_device() {
  const cudaDeviceProp& p = *at::cuda::getCurrentDeviceProperties();
  CudaDevice device =
      cuda_device_like(p.major * 10 + p.minor, cuda_processors(p.multiProcessorCount),
                       static_cast<int>(p.sharedMemPerBlockOptin), static_cast<int>(p.sharedMemPerMultiprocessor),
                       p.regsPerMultiprocessor, p.maxThreadsPerMultiProcessor, p.l2CacheSize);
  device.cooperative = p.cooperativeLaunch != 0;
  return device;
}

CudaDtype cuda_dtype(at::ScalarType dtype) {
  switch (dtype) {
    case at::kDouble:
      return CudaDtype::kDouble;
    case at::kHalf:
      return CudaDtype::kHalf;
    case at::kBFloat16:
      return CudaDtype::kBFloat16;
    default:
      return CudaDtype::kFloat;
  }
}

CudaShape shape_of(CellKind kind, const LayerSizes& s, at::ScalarType dtype, bool tf32) {
  CudaShape shape;
  shape.cell = kind;
  shape.T = s.T, shape.B = s.B, shape.I = s.I, shape.H = s.H, shape.P = s.P;
  shape.directions = s.directions;
  shape.dtype = cuda_dtype(dtype);
  shape.projection = s.projection;
  shape.packed = s.packed;
  shape.tf32 = tf32;
  shape.choice = cuda_choice();
  return shape;
}

// torch.backends.cudnn.rnn.fp32_precision, with what it inherits.
bool may_round_to_tf32() { return at::globalContext().allowTF32CuDNN(at::Float32Op::RNN); }

void check(const cuda::Status& status, CellKind kind, bool backward) {
  TORCH_CHECK(status, op_name(kind, backward), ": ", status.operation, ": ", status.text);
}

// Of the call; the allocator gives it to no other stream before this one has passed.
at::Tensor workspace(size_t bytes, const at::Tensor& x) {
  return at::empty({static_cast<int64_t>(bytes)}, x.options().dtype(at::kByte));
}

template <class S>
void forward(CellKind kind, const LayerSizes& s, const HeldInputs& held, const LayerOutputs& out, bool training) {
  cuda::CudaForward<S> args;
  args.in = held.inputs<S>(cell_info(kind), s);
  args.y = output<S>(out.y);
  args.h_n = output<S>(out.h_n);
  args.c_n = output<S>(out.c_n);
  args.saved = output<cuda::Compute<S>>(out.saved);
  args.cells = output<cuda::Compute<S>>(out.cells);
  args.training = training;
  const bool tf32 = may_round_to_tf32();
  CudaShape shape = shape_of(kind, s, held.x.scalar_type(), tf32);
  shape.training = training;
  const CudaPlan plan = plan_cuda(shape, this_device(), false);
  const at::Tensor memory = workspace(cuda::forward_workspace_bytes<S>(kind, args, plan), held.x);
  TorchGemm gemm(tf32);
  check(cuda::layer_forward<S>(kind, args, plan, memory.mutable_data_ptr(), gemm.gemm(),
                               at::cuda::getCurrentCUDAStream()),
        kind, false);
}

template <class S>
void backward(CellKind kind, const LayerSizes& s, const HeldInputs& held, const BackwardTensors& t) {
  cuda::CudaBackward<S> args;
  args.in = held.inputs<S>(cell_info(kind), s);
  set_tensors<S, cuda::Compute<S>>(args, s, held.has_biases, t);
  const bool tf32 = may_round_to_tf32();
  CudaShape shape = shape_of(kind, s, held.x.scalar_type(), tf32);
  shape.backward = true;
  shape.clip_norm = args.bptt.clip == Bptt::kNorm;
  const CudaPlan plan = plan_cuda(shape, this_device(), false);
  const at::Tensor memory = workspace(cuda::backward_workspace_bytes<S>(kind, args, plan), held.x);
  TorchGemm gemm(tf32);
  check(cuda::layer_backward<S>(kind, args, plan, memory.mutable_data_ptr(), gemm.gemm(),
                                at::cuda::getCurrentCUDAStream()),
        kind, true);
}

// Calls f with a value of the storage type that dtype means on the device.
template <class F>
void with_storage(at::ScalarType dtype, const F& f) {
  switch (dtype) {
    case at::kDouble:
      return f(double{});
    case at::kHalf:
      return f(cuda::Half{});
    case at::kBFloat16:
      return f(cuda::BFloat16{});
    default:
      return f(float{});
  }
}

constexpr LayerPasses kCudaPasses{
    [](CellKind kind, const LayerSizes& s, const HeldInputs& held, const LayerOutputs& out, bool training) {
      with_storage(held.x.scalar_type(), [&](auto type) { forward<decltype(type)>(kind, s, held, out, training); });
    },
    [](CellKind kind, const LayerSizes& s, const HeldInputs& held, const BackwardTensors& t) {
      with_storage(held.x.scalar_type(), [&](auto type) { backward<decltype(type)>(kind, s, held, t); });
    }};

// What looks at values on the host waits for the device, which a capture does not allow.
void check_stream(const LayerCall& call, bool backward) {
  const bool records = backward && is_recording(call.options.recorder);
  if (!call.options.check && !records) return;
  TORCH_CHECK(c10::cuda::currentStreamCaptureStatusMayInitCtx() == c10::cuda::CaptureStatus::None,
              op_name(call.kind, backward), ": ",
              call.options.check ? "nan_policy='raise'" : "diagnostics.gradient_flow",
              ": expected a stream that no CUDA graph is capturing, since the result is read on the host");
}

LayerResult layer_cuda(const LayerCall& call, bool save) {
  const LayerSizes s = check_layer_inputs(call.kind, call.x, call.h0, call.c0, call.weights, call.batch_sizes,
                                          call.has_biases, call.bidirectional);
  const c10::DeviceGuard device(call.x.device());
  check_stream(call, false);
  return run_layer(call, s, kCudaPasses, save);
}

LayerGradients layer_backward_cuda(const LayerCall& call, const OptionalTensor& grad_y,
                                   const OptionalTensor& grad_h_n, const OptionalTensor& grad_c_n,
                                   const at::Tensor& y, const at::Tensor& saved, const at::Tensor& cells,
                                   const c10::List<bool>& output_mask) {
  const LayerSizes s = check_layer_inputs(call.kind, call.x, call.h0, call.c0, call.weights, call.batch_sizes,
                                          call.has_biases, call.bidirectional);
  check_backward_inputs(call.kind, s, call.x.scalar_type(), call.x.device(), grad_y, grad_h_n, grad_c_n, y, saved,
                        cells, output_mask.size(), call.options);
  const c10::DeviceGuard device(call.x.device());
  check_stream(call, true);
  return run_layer_backward(call, s, kCudaPasses, grad_y, grad_h_n, grad_c_n, y, saved, cells, output_mask);
}

}  // namespace

TORCH_LIBRARY_IMPL(rnnfast, CUDA, m) {
#define RNNFAST_IMPLEMENT(name, Cell, variant)                              \
  m.impl(#name "_layer", TORCH_FN((layer_op<CellKind::name, layer_cuda>))); \
  m.impl(#name "_layer_backward", TORCH_FN((layer_backward_op<CellKind::name, layer_backward_cuda>)));
  RNNFAST_CELLS(RNNFAST_IMPLEMENT)
#undef RNNFAST_IMPLEMENT
}

}  // namespace rnnfast
