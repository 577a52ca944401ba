// SPDX-License-Identifier: Apache-2.0
#include "bindings/layer_checks.h"

#include <ATen/Functions.h>
#include <c10/util/Exception.h>

#include <algorithm>

namespace rnnfast {
namespace {

// Devices with kernels in this build.
bool has_kernels(at::Device device) {
#ifdef RNNFAST_CUDA
  if (device.is_cuda()) return true;
#endif
  return device.is_cpu();
}

void check_plain(const std::string& op, const char* name, const at::Tensor& t, at::Device device) {
  TORCH_CHECK(t.defined(), op, ": ", name, ": expected a tensor, got an undefined one");
  TORCH_CHECK(t.device() == device, op, ": ", name, ": expected a ",
              device.is_cpu() ? std::string("CPU tensor") : "tensor on " + device.str() + " as x", ", got one on ",
              t.device());
  TORCH_CHECK(t.layout() == at::kStrided, op, ": ", name, ": expected a dense (strided) tensor, got layout ",
              t.layout());
}

void check_batch_sizes(const std::string& op, const at::Tensor& sizes, LayerSizes& out) {
  check_plain(op, "batch_sizes", sizes, at::kCPU);  // the plan and the launches read it
  TORCH_CHECK(sizes.scalar_type() == at::kLong, op, ": batch_sizes: expected int64, got ", sizes.scalar_type());
  TORCH_CHECK(sizes.dim() == 1 && sizes.numel() > 0, op,
              ": batch_sizes: expected one dimension with at least one entry, got shape ", sizes.sizes());
  const std::vector<int64_t> values = read_batch_sizes(sizes);
  out.T = sizes.numel();
  out.offsets.assign(1, 0);
  for (int64_t t = 0; t < out.T; ++t) {
    const int64_t size = values[size_t(t)];
    TORCH_CHECK(size > 0, op, ": batch_sizes: expected positive entries, got ", size, " at ", t);
    TORCH_CHECK(t == 0 || size <= values[size_t(t - 1)], op, ": batch_sizes: expected non-increasing entries, got ",
                size, " after ", values[size_t(t - 1)], " at ", t);
    TORCH_CHECK(size <= out.rows - out.offsets.back(), op, ": batch_sizes: expected a sum equal to the ", out.rows,
                " rows of x, got more by entry ", t);
    out.offsets.push_back(out.offsets.back() + size);
  }
  TORCH_CHECK(out.offsets.back() == out.rows, op, ": batch_sizes: expected a sum equal to the ", out.rows,
              " rows of x, got ", out.offsets.back());
  out.B = values[0];
  out.lengths.reserve(static_cast<size_t>(out.B));
  for (int64_t t = out.T; t-- > 0;) out.lengths.resize(static_cast<size_t>(values[size_t(t)]), t + 1);
  out.batch_sizes = values;
}

}  // namespace

LayerShape LayerSizes::shape(const CellInfo& cell, int element_bytes) const {
  LayerShape s;
  s.T = T, s.B = B, s.I = I, s.H = H, s.P = P;
  s.gates = cell.gates;
  s.directions = directions;
  s.element_bytes = element_bytes;
  s.packed_sequence = packed;
  s.projection = projection;
  return s;
}

std::vector<int64_t> LayerSizes::y_shape() const {
  return packed ? std::vector<int64_t>{rows, directions * P} : std::vector<int64_t>{T, B, directions * P};
}

std::string op_name(CellKind kind, bool backward) {
  return std::string("rnnfast::") + cell_info(kind).name + (backward ? "_layer_backward" : "_layer");
}

std::vector<int64_t> read_batch_sizes(const at::Tensor& sizes) {
  std::vector<int64_t> values(static_cast<size_t>(sizes.numel()));
  if (sizes.has_storage()) {
    const at::Tensor contiguous = sizes.contiguous();
    std::copy_n(contiguous.const_data_ptr<int64_t>(), values.size(), values.begin());
  } else {
    for (size_t t = 0; t < values.size(); ++t) values[t] = sizes.select(0, int64_t(t)).item<int64_t>();
  }
  return values;
}

void check_backward_inputs(CellKind kind, const LayerSizes& s, at::ScalarType dtype, at::Device device,
                           const OptionalTensor& grad_y, const OptionalTensor& grad_h_n,
                           const OptionalTensor& grad_c_n, const at::Tensor& y, const at::Tensor& saved,
                           const at::Tensor& cells, size_t mask_size, const LayerOptions& options) {
  const std::string op = op_name(kind, true);
  const CellInfo& cell = cell_info(kind);
  const at::ScalarType inner = computed(dtype);
  const int64_t D = s.directions;
  const auto shape_if = [](bool present, std::vector<int64_t> shape) {
    return present ? shape : std::vector<int64_t>{0};
  };
  check_tensor(op, "y", y, dtype, s.y_shape(), device);
  if (options.checkpoint != 0) {
    const int64_t kept = options.kept_states(s.T);
    check_tensor(op, "saved", saved, inner, {D, kept, s.B, s.P}, device);
    check_tensor(op, "cells", cells, inner, shape_if(cell.has_cell, {D, kept, s.B, s.H}), device);
  } else {
    check_tensor(op, "saved", saved, inner, shape_if(cell.saved > 0, {D, s.rows, cell.saved * s.H}), device);
    check_tensor(op, "cells", cells, inner, shape_if(cell.has_cell, {D, s.rows, s.H}), device);
  }
  if (grad_y) check_tensor(op, "grad_y", *grad_y, dtype, s.y_shape(), device);
  if (grad_h_n) check_tensor(op, "grad_h_n", *grad_h_n, dtype, s.h_shape(), device);
  // Autograd may hand in the empty gradient of an output that the cell does not have.
  if (grad_c_n && cell.has_cell) check_tensor(op, "grad_c_n", *grad_c_n, dtype, s.c_shape(), device);
  const size_t inputs = 3 + static_cast<size_t>(s.directions) * s.weights_each;
  TORCH_CHECK(mask_size == inputs, op, ": output_mask: expected ", inputs,
              " entries (x, h0, c0 and each weight), got ", mask_size);
}

void check_tensor(const std::string& op, const char* name, const at::Tensor& tensor, at::ScalarType dtype,
                  at::IntArrayRef shape, at::Device device) {
  check_plain(op, name, tensor, device);
  TORCH_CHECK(tensor.scalar_type() == dtype, op, ": ", name, ": expected dtype ", dtype, ", got ",
              tensor.scalar_type());
  TORCH_CHECK(tensor.sizes() == shape, op, ": ", name, ": expected shape ", shape, ", got ", tensor.sizes());
}

void check_weights(CellKind kind, const std::string& op, at::TensorList weights, bool has_biases,
                   bool bidirectional, at::ScalarType dtype, at::Device device, LayerSizes& s) {
  const CellInfo& cell = cell_info(kind);
  s.directions = bidirectional ? 2 : 1;
  const size_t directions = static_cast<size_t>(s.directions), plain = has_biases ? 4 : 2;
  s.projection = cell.has_cell && weights.size() == (plain + 1) * directions;
  s.weights_each = plain + (s.projection ? 1 : 0);
  TORCH_CHECK(weights.size() == s.weights_each * directions, op, ": weights: expected ", plain * directions,
              " tensors (", directions, " direction(s) of ", has_biases ? "w_ih, w_hh, b_ih, b_hh" : "w_ih, w_hh",
              cell.has_cell ? "; one more each, w_hr, with a projection" : "", "), got ", weights.size());
  check_plain(op, "weights[0] (w_ih)", weights[0], device);
  check_plain(op, "weights[1] (w_hh)", weights[1], device);
  const at::Tensor &w_ih = weights[0], &w_hh = weights[1];
  TORCH_CHECK(w_hh.dim() == 2 && w_hh.size(1) > 0 && w_hh.size(0) > 0 && w_hh.size(0) % cell.gates == 0 &&
                  (s.projection || w_hh.size(0) == cell.gates * w_hh.size(1)),
              op, ": weights[1] (w_hh): expected shape [", cell.gates, "H, ", s.projection ? "P" : "H",
              "] with H > 0, got ", w_hh.sizes());
  s.H = w_hh.size(0) / cell.gates;
  s.P = w_hh.size(1);
  const int64_t gates = cell.gates * s.H;
  TORCH_CHECK(w_ih.dim() == 2 && w_ih.size(0) == gates && w_ih.size(1) > 0, op,
              ": weights[0] (w_ih): expected shape [", gates, ", I] with I > 0, got ", w_ih.sizes());
  s.I = w_ih.size(1);
  static const char* const kNames[] = {"w_ih", "w_hh", "b_ih", "b_hh"};
  for (size_t i = 0; i < weights.size(); ++i) {
    const size_t which = i % s.weights_each;
    const bool hr = which == plain;
    const std::string name = "weights[" + std::to_string(i) + "] (" + (hr ? "w_hr" : kNames[which]) + ")";
    std::vector<int64_t> shape{gates};
    if (hr) {
      shape = {s.P, s.H};
    } else if (which < 2) {
      shape = {gates, which == 0 ? s.I : s.P};
    }
    check_tensor(op, name.c_str(), weights[i], dtype, shape, device);
  }
}

void check_sequence(CellKind kind, const std::string& op, const at::Tensor& x, const OptionalTensor& h0,
                    const OptionalTensor& c0, const OptionalTensor& batch_sizes, LayerSizes& s) {
  s.packed = batch_sizes.has_value();
  TORCH_CHECK(x.dim() == (s.packed ? 2 : 3), op, ": x: expected ",
              s.packed ? "2 dimensions [rows, I] with batch_sizes" : "3 dimensions [T, B, I]", ", got shape ",
              x.sizes());
  TORCH_CHECK(x.size(-1) == s.I, op, ": x: expected ", s.I, " features as weights[0] (w_ih) has, got shape ",
              x.sizes());
  if (s.packed) {
    s.rows = x.size(0);
    check_batch_sizes(op, *batch_sizes, s);
  } else {
    s.T = x.size(0);
    s.B = x.size(1);
    s.rows = s.T * s.B;
  }
  TORCH_CHECK(s.T > 0, op, ": x: expected at least one time step, got shape ", x.sizes());
  const at::ScalarType dtype = x.scalar_type();
  if (h0) check_tensor(op, "h0", *h0, dtype, s.h_shape(), x.device());
  TORCH_CHECK(!c0 || cell_info(kind).has_cell, op,
              ": c0: expected None, as this cell has no cell state, got a tensor");
  if (c0) check_tensor(op, "c0", *c0, dtype, s.c_shape(), x.device());
}

LayerSizes check_layer_inputs(CellKind kind, const at::Tensor& x, const OptionalTensor& h0,
                              const OptionalTensor& c0, at::TensorList weights, const OptionalTensor& batch_sizes,
                              bool has_biases, bool bidirectional) {
  const std::string op = op_name(kind);
  LayerSizes s;
  TORCH_CHECK(x.defined(), op, ": x: expected a tensor, got an undefined one");
  TORCH_CHECK(has_kernels(x.device()), op, ": x: expected a tensor on a device with kernels, got one on ",
              x.device());
  check_plain(op, "x", x, x.device());
  const at::ScalarType dtype = x.scalar_type();
  TORCH_CHECK(dtype == at::kFloat || dtype == at::kDouble || is_reduced(dtype), op,
              ": x: expected dtype float32, float64, float16 or bfloat16, got ", dtype);
  TORCH_CHECK(x.dim() > 0 && x.size(-1) > 0, op, ": x: expected at least one feature, got shape ", x.sizes());
  check_weights(kind, op, weights, has_biases, bidirectional, dtype, x.device(), s);
  check_sequence(kind, op, x, h0, c0, batch_sizes, s);
  return s;
}

}  // namespace rnnfast
