// SPDX-License-Identifier: Apache-2.0
#include "bindings/recorder.h"

#include <ATen/Functions.h>
#include <c10/util/Exception.h>
#include <torch/csrc/autograd/graph_task.h>

#include <cmath>
#include <map>
#include <mutex>

namespace rnnfast {
namespace {

struct Recorder {
  int pass = -1;  // autograd's number of it, which grows from pass to pass; -1: the op was called without autograd
  std::vector<Recording> layers;
};

struct Registry {
  std::mutex mutex;
  std::map<int64_t, Recorder> open;
  int64_t last = 0;
};

Registry& registry() {
  static Registry* const r = new Registry;  // outlives whatever thread may still go backward
  return *r;
}

// What of a cell can saturate: H values each, `stride` apart from row to row.
enum class Gate { kSigmoid, kTanh, kRelu };

std::vector<Gate> gates_of(CellKind kind) {
  switch (kind) {
    case CellKind::lstm:
      return {Gate::kSigmoid, Gate::kSigmoid, Gate::kTanh, Gate::kSigmoid};
    case CellKind::gru:
      return {Gate::kSigmoid, Gate::kSigmoid, Gate::kTanh};
    case CellKind::rnn_tanh:
      return {Gate::kTanh};
    case CellKind::rnn_relu:
      return {Gate::kRelu};
    case CellKind::rnn_sigmoid:
      return {Gate::kSigmoid};
  }
  return {};
}

// How many of the H values of each row and gate are saturated: [D, N, gates], on the CPU.
at::Tensor saturated(const LayerCall& call, const LayerSizes& s, const at::Tensor& y, const at::Tensor& saved) {
  const CellInfo& cell = cell_info(call.kind);
  const at::Tensor values = cell.saved > 0 ? saved.view({s.directions, s.rows, cell.saved, s.H})
                                           : y.view({s.rows, s.directions, 1, s.P}).transpose(0, 1);
  std::vector<at::Tensor> counts;
  for (const Gate gate : gates_of(call.kind)) {
    const at::Tensor v = values.select(2, int64_t(counts.size()));
    const at::Tensor is = gate == Gate::kSigmoid ? v.lt(0.1).logical_or_(v.gt(0.9))
                          : gate == Gate::kTanh  ? v.abs().gt(0.9)
                                                 : v.le(0);
    counts.push_back(is.sum(-1));
  }
  return at::stack(counts, -1).cpu();
}

template <class T>
void fill(const LayerCall& call, const LayerSizes& s, const at::Tensor& record, const at::Tensor& counts,
          double* out) {
  const int64_t gates = counts.size(2), width = kFlow + gates;
  const bool has_cell = cell_info(call.kind).has_cell;
  const Bptt& bptt = call.options.bptt;
  const int64_t signals = bptt.clip == Bptt::kValue ? s.P + (has_cell ? s.H : 0) : 1 + (has_cell ? 1 : 0);
  const T* const rows = record.const_data_ptr<T>();
  const int64_t* const saturated = counts.const_data_ptr<int64_t>();
  const Sequence seq = s.sequence();
  for (int64_t d = 0; d < s.directions; ++d)
    for (int64_t t = 0; t < s.T; ++t) {
      const int64_t first = seq.first_row(t), active = seq.active(t);
      double* const to = out + (d * s.T + t) * width;
      for (int64_t row = first; row < first + active; ++row) {
        const T* const r = rows + (d * s.rows + row) * kRecorded;
        const auto largest = [](double a, double b) { return b > a || std::isnan(b) ? b : a; };  // NaN wins
        to[kDh] += double(r[0]), to[kDhMax] = largest(to[kDhMax], double(r[0]));
        to[kDc] += double(r[1]), to[kDcMax] = largest(to[kDcMax], double(r[1]));
        to[kLimited] += double(r[2]) / double(signals);
        for (int64_t g = 0; g < gates; ++g)
          to[kFlow + g] += double(saturated[(d * s.rows + row) * gates + g]) / double(s.H);
      }
      for (int64_t k = 0; k < width; ++k)
        if (k != kDhMax && k != kDcMax && k != kInjected) to[k] /= double(active);
    }
}

// Where a gradient [..., D, features] is not zero: [..., D] on the CPU; undefined where there is none.
at::Tensor nonzero(const OptionalTensor& grad, at::IntArrayRef shape) {
  const bool given = grad.has_value() && grad->defined() && grad->numel() > 0;
  return given ? grad->reshape(shape).ne(0).any(-1).cpu().contiguous() : at::Tensor();
}

// The fraction of each step's samples into which gradient comes from outside, to the column `out` of a recording.
void fill_injected(const LayerSizes& s, const OptionalTensor& grad_y, const OptionalTensor& grad_h_n,
                   const OptionalTensor& grad_c_n, double* out, int64_t width) {
  const at::Tensor rows = nonzero(grad_y, {s.rows, s.directions, s.P});
  const at::Tensor finals[] = {nonzero(grad_h_n, {s.directions, s.B, s.P}),
                               nonzero(grad_c_n, {s.directions, s.B, s.H})};
  const auto set = [](const at::Tensor& of, int64_t i) { return of.defined() && of.const_data_ptr<bool>()[i]; };
  const Sequence seq = s.sequence();
  for (int64_t d = 0; d < s.directions; ++d)
    for (int64_t t = 0; t < s.T; ++t) {
      const int64_t first = seq.first_row(t), active = seq.active(t), going_on = seq.active_after(t, d == 1);
      int64_t count = 0;
      for (int64_t b = 0; b < active; ++b) {
        const bool last = b >= going_on;
        const bool final = last && (set(finals[0], d * s.B + b) || set(finals[1], d * s.B + b));
        count += final || set(rows, (first + b) * s.directions + d) ? 1 : 0;
      }
      out[(d * s.T + t) * width] = double(count) / double(active);
    }
}

}  // namespace

int64_t open_recorder(int64_t again) {
  Registry& r = registry();
  const std::lock_guard<std::mutex> lock(r.mutex);
  TORCH_CHECK(again >= 0 && again <= r.last && r.open.count(again) == 0,
              "rnnfast: open_recorder: again: expected 0, or the number of a closed recorder, got ", again);
  const int64_t number = again > 0 ? again : ++r.last;
  r.open[number];
  return number;
}

std::vector<Recording> recorded(int64_t recorder) {
  Registry& r = registry();
  const std::lock_guard<std::mutex> lock(r.mutex);
  const auto found = r.open.find(recorder);
  return found == r.open.end() ? std::vector<Recording>{} : found->second.layers;
}

void close_recorder(int64_t recorder) {
  Registry& r = registry();
  const std::lock_guard<std::mutex> lock(r.mutex);
  r.open.erase(recorder);
}

bool is_recording(int64_t recorder) {
  if (recorder == 0) return false;
  Registry& r = registry();
  const std::lock_guard<std::mutex> lock(r.mutex);
  return r.open.count(recorder) > 0;
}

at::Tensor begin_flow(const LayerCall& call, const LayerSizes& s, const OptionalTensor& grad_y,
                      const OptionalTensor& grad_h_n, const OptionalTensor& grad_c_n) {
  const int64_t width = kFlow + int64_t(gates_of(call.kind).size());
  at::Tensor flow = at::zeros({s.directions, s.T, width}, at::kDouble);
  fill_injected(s, grad_y, grad_h_n, grad_c_n, flow.mutable_data_ptr<double>() + kInjected, width);
  return flow;
}

void fill_flow(const LayerCall& call, const LayerSizes& s, const at::Tensor& record, const at::Tensor& y,
               const at::Tensor& saved, const at::Tensor& flow) {
  const at::Tensor counts = saturated(call, s, y, saved);
  if (record.scalar_type() == at::kFloat) {
    fill<float>(call, s, record, counts, flow.mutable_data_ptr<double>());
  } else {
    fill<double>(call, s, record, counts, flow.mutable_data_ptr<double>());
  }
}

void keep_flow(const LayerCall& call, at::Tensor flow) {
  const int pass = torch::autograd::get_current_graph_task_id();
  Registry& r = registry();
  const std::lock_guard<std::mutex> lock(r.mutex);
  const auto found = r.open.find(call.options.recorder);
  if (found == r.open.end()) return;
  Recorder& recorder = found->second;
  if (pass >= 0 && pass < recorder.pass) return;  // in another thread a newer one has begun
  // A pass goes down the stack: where it is not below, it has come to another call of the module.
  const int64_t layer = call.options.layer;
  const auto continues = [&](const Recording& above) {
    return layer < above.first && flow.sizes() == above.second.sizes();
  };
  if (pass != recorder.pass || recorder.layers.empty() || !continues(recorder.layers.back()))
    recorder.layers.clear();
  recorder.pass = pass;
  recorder.layers.emplace_back(layer, std::move(flow));
}

}  // namespace rnnfast
