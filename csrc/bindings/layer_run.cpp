// SPDX-License-Identifier: Apache-2.0
#include "bindings/layer_run.h"

#include "bindings/checkpoint.h"
#include "bindings/finite.h"
#include "bindings/recorder.h"

namespace rnnfast {

LayerResult run_layer(const LayerCall& call, const LayerSizes& s, const LayerPasses& passes, bool save) {
  const CellInfo& cell = cell_info(call.kind);
  if (save && call.options.checkpoint != 0) return forward_in_segments(call, s, passes);
  // A cell state can overflow and leave h finite, so that checking wants them all.
  const bool keep = save || (call.options.check && cell.has_cell);
  LayerOutputs out = empty_outputs(cell, s, call.x.options(), keep);
  const HeldInputs held(call.x, call.h0, call.c0, call.weights, call.has_biases);
  if (s.rows > 0) passes.forward(call.kind, s, held, out, keep);
  if (call.options.check) {
    check_states(call, s, out.y, out.cells);
    check_final(call, s, out.c_n);
  }
  if (keep && !save) {  // an op's outputs share no storage
    out.saved = at::empty({0}, out.saved.options());
    out.cells = at::empty({0}, out.cells.options());
  }
  return {out.y, out.h_n, out.c_n, out.saved, out.cells};
}

at::Tensor run_recorded(const LayerCall& call, const LayerSizes& s, const LayerPasses& passes,
                        const HeldInputs& held, BackwardTensors& t, const at::Tensor& flow) {
  if (flow.defined() || call.options.check)
    t.record = at::empty({s.directions, s.rows, kRecorded}, call.x.options().dtype(computed(call.x.scalar_type())));
  passes.backward(call.kind, s, held, t);
  if (!t.record.defined()) return {};
  const at::Tensor record = t.record.cpu();
  if (flow.defined()) fill_flow(call, s, record, t.y, t.saved, flow);
  return record;
}

LayerGradients run_layer_backward(const LayerCall& call, const LayerSizes& s, const LayerPasses& passes,
                                  const OptionalTensor& grad_y, const OptionalTensor& grad_h_n,
                                  const OptionalTensor& grad_c_n, const at::Tensor& y, const at::Tensor& saved,
                                  const at::Tensor& cells, const c10::List<bool>& output_mask) {
  if (call.options.checkpoint != 0 && s.rows > 0) {
    const at::Tensor grads[] = {contiguous_or_undefined(grad_y), contiguous_or_undefined(grad_h_n),
                                contiguous_or_undefined(grad_c_n)};
    return backward_in_segments(call, s, passes, grads, saved, cells, output_mask);
  }
  BackwardTensors t = backward_tensors(call, s, grad_y, grad_h_n, grad_c_n, y, saved, cells, output_mask);
  if (s.rows > 0) {
    const HeldInputs held(call.x, call.h0, call.c0, call.weights, call.has_biases);
    t.bptt = call.options.bptt;
    at::Tensor flow;
    if (is_recording(call.options.recorder)) flow = begin_flow(call, s, grad_y, grad_h_n, grad_c_n);
    const at::Tensor record = run_recorded(call, s, passes, held, t, flow);
    if (flow.defined()) keep_flow(call, std::move(flow));
    if (call.options.check) check_signals(call, s, record);
  }
  return {t.grad_x, t.grad_h0, t.grad_c0, std::move(t.grad_weights)};
}

}  // namespace rnnfast
