// SPDX-License-Identifier: Apache-2.0
#include "bindings/lstm_checks.h"

#include <c10/util/Exception.h>

namespace rnnfast {
namespace {

constexpr const char* kOp = "rnnfast::lstm_layer";

void check_plain(const char* op, const char* name, const at::Tensor& t) {
  TORCH_CHECK(t.defined(), op, ": ", name, ": expected a tensor, got an undefined one");
  TORCH_CHECK(t.device().is_cpu(), op, ": ", name, ": expected a CPU tensor, got one on ", t.device());
  TORCH_CHECK(t.layout() == at::kStrided, op, ": ", name, ": expected a dense (strided) tensor, got layout ",
              t.layout());
}

void check_batch_sizes(const at::Tensor& sizes, int64_t rows, LstmSizes& out) {
  check_plain(kOp, "batch_sizes", sizes);
  TORCH_CHECK(sizes.scalar_type() == at::kLong, kOp, ": batch_sizes: expected int64, got ", sizes.scalar_type());
  TORCH_CHECK(sizes.dim() == 1 && sizes.numel() > 0, kOp,
              ": batch_sizes: expected one dimension with at least one entry, got shape ", sizes.sizes());
  const at::Tensor contiguous = sizes.contiguous();
  const int64_t* values = contiguous.const_data_ptr<int64_t>();
  out.T = sizes.numel();
  out.batch_sizes.assign(values, values + out.T);
  out.offsets.assign(1, 0);
  for (int64_t t = 0; t < out.T; ++t) {
    const int64_t size = values[t];
    TORCH_CHECK(size > 0, kOp, ": batch_sizes: expected positive entries, got ", size, " at ", t);
    TORCH_CHECK(t == 0 || size <= values[t - 1], kOp, ": batch_sizes: expected non-increasing entries, got ", size,
                " after ", values[t - 1], " at ", t);
    TORCH_CHECK(size <= rows - out.offsets.back(), kOp, ": batch_sizes: expected a sum equal to the ", rows,
                " rows of x, got more by entry ", t);
    out.offsets.push_back(out.offsets.back() + size);
  }
  TORCH_CHECK(out.offsets.back() == rows, kOp, ": batch_sizes: expected a sum equal to the ", rows,
              " rows of x, got ", out.offsets.back());
  out.B = values[0];
}

}  // namespace

void check_like_x(const char* op, const char* name, const at::Tensor& tensor, const at::Tensor& x,
                  at::IntArrayRef shape) {
  check_plain(op, name, tensor);
  TORCH_CHECK(tensor.scalar_type() == x.scalar_type(), op, ": ", name, ": expected dtype ", x.scalar_type(),
              " as x, got ", tensor.scalar_type());
  TORCH_CHECK(tensor.sizes() == shape, op, ": ", name, ": expected shape ", shape, ", got ", tensor.sizes());
}

LstmSizes check_lstm_inputs(const at::Tensor& x, const OptionalTensor& h0, const OptionalTensor& c0,
                            at::TensorList weights, const OptionalTensor& batch_sizes, bool has_biases,
                            bool bidirectional) {
  LstmSizes s;
  check_plain(kOp, "x", x);
  TORCH_CHECK(x.scalar_type() == at::kFloat || x.scalar_type() == at::kDouble, kOp,
              ": x: expected dtype float32 or float64, got ", x.scalar_type());
  s.packed = batch_sizes.has_value();
  s.directions = bidirectional ? 2 : 1;
  TORCH_CHECK(x.dim() == (s.packed ? 2 : 3), kOp, ": x: expected ",
              s.packed ? "2 dimensions [rows, I] with batch_sizes" : "3 dimensions [T, B, I]", ", got shape ",
              x.sizes());
  s.I = x.size(-1);
  if (s.packed) {
    s.rows = x.size(0);
    check_batch_sizes(*batch_sizes, s.rows, s);
  } else {
    s.T = x.size(0);
    s.B = x.size(1);
    s.rows = s.T * s.B;
  }
  TORCH_CHECK(s.T > 0, kOp, ": x: expected at least one time step, got shape ", x.sizes());
  TORCH_CHECK(s.I > 0, kOp, ": x: expected at least one feature, got shape ", x.sizes());

  const size_t per_direction = has_biases ? 4 : 2;
  TORCH_CHECK(weights.size() == per_direction * static_cast<size_t>(s.directions), kOp, ": weights: expected ",
              per_direction * static_cast<size_t>(s.directions), " tensors (", s.directions, " direction(s) of ",
              has_biases ? "w_ih, w_hh, b_ih, b_hh" : "w_ih, w_hh", "), got ", weights.size());
  const at::Tensor& first = weights[1];
  check_plain(kOp, "weights[1] (w_hh)", first);
  TORCH_CHECK(first.dim() == 2 && first.size(1) > 0 && first.size(0) == 4 * first.size(1), kOp,
              ": weights[1] (w_hh): expected shape [4H, H] with H > 0, got ", first.sizes());
  s.H = first.size(1);
  static const char* const kNames[] = {"w_ih", "w_hh", "b_ih", "b_hh"};
  for (size_t i = 0; i < weights.size(); ++i) {
    const size_t kind = i % per_direction;
    const std::string name = "weights[" + std::to_string(i) + "] (" + kNames[kind] + ")";
    const int64_t gates = 4 * s.H;
    if (kind >= 2) {
      check_like_x(kOp, name.c_str(), weights[i], x, {gates});
    } else {
      check_like_x(kOp, name.c_str(), weights[i], x, {gates, kind == 0 ? s.I : s.H});
    }
  }
  if (h0) check_like_x(kOp, "h0", *h0, x, {s.directions, s.B, s.H});
  if (c0) check_like_x(kOp, "c0", *c0, x, {s.directions, s.B, s.H});
  return s;
}

}  // namespace rnnfast
