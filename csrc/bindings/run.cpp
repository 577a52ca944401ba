// SPDX-License-Identifier: Apache-2.0
#include "bindings/run.h"

#include "bindings/machine.h"
#include "bindings/workspace.h"

namespace rnnfast {
namespace {

template <class T>
T* output(const at::Tensor& t) {
  return t.numel() > 0 ? t.mutable_data_ptr<T>() : nullptr;
}

}  // namespace

LayerOutputs empty_outputs(const CellInfo& cell, const LayerSizes& s, const at::TensorOptions& options,
                           bool training) {
  const int64_t D = s.directions;
  LayerOutputs out;
  out.y = at::empty(s.y_shape(), options);
  out.h_n = at::empty(s.h_shape(), options);
  out.c_n = cell.has_cell ? at::empty(s.c_shape(), options) : at::empty({0}, options);
  out.saved =
      training && cell.saved > 0 ? at::empty({D, s.rows, cell.saved * s.H}, options) : at::empty({0}, options);
  out.cells = training && cell.has_cell ? at::empty({D, s.rows, s.H}, options) : at::empty({0}, options);
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
  Machine machine = this_machine();
  machine.vector_bytes = target.vector_bytes;
  const LayerPlan plan = plan_forward(shape, machine);
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

template void run_forward<float>(CellKind, const Kernels&, const LayerSizes&, const HeldInputs&, const float*,
                                 const LayerOutputs&, bool);
template void run_forward<double>(CellKind, const Kernels&, const LayerSizes&, const HeldInputs&, const double*,
                                  const LayerOutputs&, bool);

}  // namespace rnnfast
