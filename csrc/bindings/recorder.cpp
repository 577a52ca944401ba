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

template <class T>
int64_t saturated(Gate gate, const T* values, int64_t n) {
  int64_t count = 0;
  for (int64_t j = 0; j < n; ++j) {
    const T v = values[j];
    count += gate == Gate::kSigmoid ? (v < T(0.1) || v > T(0.9))
             : gate == Gate::kTanh  ? std::abs(v) > T(0.9)
                                    : v <= 0;
  }
  return count;
}

template <class T>
void fill(const LayerCall& call, const LayerSizes& s, const at::Tensor& record, const at::Tensor& y,
          const at::Tensor& saved, double* out) {
  const CellInfo& cell = cell_info(call.kind);
  const std::vector<Gate> gates = gates_of(call.kind);
  const int64_t width = kFlow + int64_t(gates.size());
  const Bptt& bptt = call.options.bptt;
  const int64_t signals = bptt.clip == Bptt::kValue ? s.P + (cell.has_cell ? s.H : 0) : 1 + (cell.has_cell ? 1 : 0);
  const T* const rows = record.const_data_ptr<T>();
  const T* const from = cell.saved > 0 ? saved.const_data_ptr<T>() : y.const_data_ptr<T>();
  for (int64_t d = 0; d < s.directions; ++d)
    for (int64_t t = 0; t < s.T; ++t) {
      const int64_t first = s.packed ? s.offsets[size_t(t)] : t * s.B;
      const int64_t active = s.packed ? s.batch_sizes[size_t(t)] : s.B;
      double* const to = out + (d * s.T + t) * width;
      for (int64_t row = first; row < first + active; ++row) {
        const T* const r = rows + (d * s.rows + row) * kRecorded;
        const auto largest = [](double a, double b) { return b > a || std::isnan(b) ? b : a; };  // NaN wins
        to[0] += double(r[0]), to[1] = largest(to[1], double(r[0]));
        to[2] += double(r[1]), to[3] = largest(to[3], double(r[1]));
        to[4] += double(r[2]) / double(signals);
        for (size_t g = 0; g < gates.size(); ++g) {
          const T* const values = cell.saved > 0 ? from + ((d * s.rows + row) * cell.saved + int64_t(g)) * s.H
                                                 : from + (row * s.directions + d) * s.P;
          to[kFlow + g] += double(saturated(gates[g], values, s.H)) / double(s.H);
        }
      }
      for (int64_t k = 0; k < width; ++k)
        if (k != 1 && k != 3) to[k] /= double(active);
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

at::Tensor empty_flow(const LayerCall& call, const LayerSizes& s) {
  return at::zeros({s.directions, s.T, kFlow + int64_t(gates_of(call.kind).size())}, at::kDouble);
}

void fill_flow(const LayerCall& call, const LayerSizes& s, const at::Tensor& record, const at::Tensor& y,
               const at::Tensor& saved, const at::Tensor& flow) {
  if (record.scalar_type() == at::kFloat) {
    fill<float>(call, s, record, y, saved, flow.mutable_data_ptr<double>());
  } else {
    fill<double>(call, s, record, y, saved, flow.mutable_data_ptr<double>());
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
