// SPDX-License-Identifier: Apache-2.0
#include "bindings/run.h"

#include "bindings/machine.h"
#include "bindings/workspace.h"

namespace rnnfast {

LayerOutputs empty_outputs(const CellInfo& cell, const LayerSizes& s, const at::TensorOptions& options,
                           bool training) {
  const int64_t D = s.directions;
  // Half precision: what the backward pass will read is not rounded.
  const at::TensorOptions kept = options.dtype(computed(c10::typeMetaToScalarType(options.dtype())));
  LayerOutputs out;
  out.y = at::empty(s.y_shape(), options);
  out.h_n = at::empty(s.h_shape(), options);
  out.c_n = cell.has_cell ? at::empty(s.c_shape(), options) : at::empty({0}, options);
  out.saved = training && cell.saved > 0 ? at::empty({D, s.rows, cell.saved * s.H}, kept) : at::empty({0}, kept);
  out.cells = training && cell.has_cell ? at::empty({D, s.rows, s.H}, kept) : at::empty({0}, kept);
  return out;
}

template <class T>
void run_forward(CellKind kind, const Kernels& target, const LayerSizes& s, const HeldInputs& held, const T* packed,
                 const LayerOutputs& out, bool training) {
  if (s.rows == 0) return;
  const CellInfo& cell = cell_info(kind);
  for (const at::Tensor& t : {out.y, out.saved, out.cells})
    prefer_huge_pages(t.mutable_data_ptr(), int64_t(t.nbytes()));
  LayerShape shape = s.shape(cell, int(sizeof(T)));
  shape.prepacked = packed != nullptr;
  shape.training = training;
  const LayerPlan plan = plan_forward(shape, this_machine());
  const ForwardSpace space = forward_space(cell, shape, plan, target.vector_bytes / int(sizeof(T)), training);
  const Workspace workspace(s.directions * space.size * int64_t(sizeof(T)));

  LayerForward<T> args;
  args.in = held.inputs<T>(cell, s);
  args.packed = packed;
  args.y = output<T>(out.y);
  args.h_n = output<T>(out.h_n);
  args.c_n = output<T>(out.c_n);
  args.saved = output<T>(out.saved);
  args.cells = output<T>(out.cells);
  args.training = training;
  Barrier all, group[2];
  const ForwardJob<T> job{&args, &plan, &space, workspace.as<T>(), &all, group};
  run_kernel(job, target.of(kind, T{}).forward, plan.threads);
}

template <class T>
void run_backward(CellKind kind, const LayerSizes& s, const HeldInputs& held, const BackwardTensors& t) {
  const CellInfo& cell = cell_info(kind);
  const Kernels& target = kernels();
  const LayerShape shape = s.shape(cell, int(sizeof(T)));
  const LayerPlan plan = plan_backward(shape, this_machine());
  const BackwardSpace space = backward_space(cell, shape, plan, target.vector_bytes / int(sizeof(T)), s.rows,
                                             t.grad_x.numel() > 0, t.bptt, t.record.defined());
  const Workspace workspace(space.size * int64_t(sizeof(T)));

  LayerBackward<T> args;
  args.in = held.inputs<T>(cell, s);
  set_tensors<T, T>(args, s, held.has_biases, t);
  Barrier all, group[2];
  const BackwardJob<T> job{&args, &plan, &space, workspace.as<T>(), &all, group};
  run_kernel(job, target.of(kind, T{}).backward, plan.threads);
}

template void run_backward<float>(CellKind, const LayerSizes&, const HeldInputs&, const BackwardTensors&);
template void run_backward<double>(CellKind, const LayerSizes&, const HeldInputs&, const BackwardTensors&);
template void run_forward<float>(CellKind, const Kernels&, const LayerSizes&, const HeldInputs&, const float*,
                                 const LayerOutputs&, bool);
template void run_forward<double>(CellKind, const Kernels&, const LayerSizes&, const HeldInputs&, const double*,
                                  const LayerOutputs&, bool);

}  // namespace rnnfast
