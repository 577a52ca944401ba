// SPDX-License-Identifier: Apache-2.0
#include "bindings/emulator/layer.h"

#include <algorithm>
#include <cstdlib>
#include <memory>

#include "bindings/plan_dict.h"
#include "cuda/layer.h"
#include "emulator/gemm.h"
#include "emulator/machine.h"

namespace RNNFAST_NAMESPACE {
namespace {

[[noreturn]] void wrong(const char* operation, const std::string& text) {
  throw py::value_error(std::string(operation) + ": " + text);
}

template <class Enum>
Enum choice(const char* operation, const char* name, const std::string& got,
            std::initializer_list<std::pair<const char*, Enum>> known) {
  std::string expected;
  for (const auto& [word, value] : known) {
    if (got == word) return value;
    expected += (expected.empty() ? "'" : ", '") + std::string(word) + "'";
  }
  wrong(operation, std::string(name) + ": expected one of " + expected + ", got '" + got + "'");
}

CellKind cell_kind(const char* operation, const std::string& name) {
  return choice<CellKind>(operation, "cell", name,
                          {
#define RNNFAST_NAME(name, Cell, variant) {#name, CellKind::name},
                              RNNFAST_CELLS(RNNFAST_NAME)
#undef RNNFAST_NAME
                          });
}

CudaDtype dtype_of(const char* operation, const std::string& name) {
  return choice<CudaDtype>(operation, "dtype", name,
                           {{"float32", CudaDtype::kFloat},
                            {"float64", CudaDtype::kDouble},
                            {"float16", CudaDtype::kHalf},
                            {"bfloat16", CudaDtype::kBFloat16}});
}

void throw_if_failed(const Status& status) {
  if (!status) throw std::runtime_error(std::string(status.operation) + ": " + status.text);
}

// Device memory, every byte as that of a NaN.
class Workspace {
 public:
  explicit Workspace(size_t bytes) : data_(std::aligned_alloc(256, (bytes + 256) / 256 * 256), &std::free) {
    std::memset(data_.get(), 0xff, bytes);
  }
  void* get() const { return data_.get(); }

 private:
  std::unique_ptr<void, void (*)(void*)> data_;
};

// Sizes of a call, its arrays checked, its plan.
template <class S>
class LayerCall {
  using V = Compute<S>;

 public:
  LayerCall(const char* operation, const LayerArguments& a, bool training, bool backward, bool clip_norm)
      : operation_(operation), a_(a), kind_(cell_kind(operation, a.cell)), cell_(cell_info(kind_)) {
    read_sizes();
    read_inputs();
    CudaShape shape;
    shape.cell = kind_;
    shape.T = T, shape.B = B, shape.I = I, shape.H = H, shape.P = P;
    shape.directions = D;
    shape.dtype = dtype_of(operation, a.dtype);
    shape.projection = in.projection, shape.packed = a.batch_sizes.has_value();
    shape.training = training, shape.backward = backward;
    shape.tf32 = a.tf32, shape.clip_norm = clip_norm;
    shape.choice = choice<CudaChoice>(
        operation, "path", a.path,
        {{"best", CudaChoice::kBest}, {"step", CudaChoice::kStep}, {"persistent", CudaChoice::kPersistent}});
    plan = plan_cuda(shape, emulator::device());
    if (shape.choice == CudaChoice::kPersistent && plan.path != CudaPath::kPersistent) {
      std::string text = "path: the persistent one was asked for, and cannot run";
      for (const std::string& reason : plan.reasons) text += "; " + reason;
      wrong(operation, text);
    }
  }

  py::dict forward(bool save) {
    py::array y = unset<S>(rows({D * P})), h_n = unset<S>({D, B, P});
    py::array c_n = unset<S>({cell_.has_cell ? D : 0, B, H});
    py::array saved = unset<V>({save ? D : 0, N, cell_.saved * H});
    py::array cells = unset<V>({save && cell_.has_cell ? D : 0, N, H});
    CudaForward<S> args;
    args.in = in;
    args.y = data_of<S>(y), args.h_n = data_of<S>(h_n), args.c_n = data_of<S>(c_n);
    args.saved = data_of<V>(saved), args.cells = data_of<V>(cells);
    args.training = save;
    Status status;
    {
      const py::gil_scoped_release release;
      const Workspace space(forward_workspace_bytes(kind_, args, plan));
      status = layer_forward(kind_, args, plan, space.get(), host_gemm(), Stream{});
    }
    throw_if_failed(status);
    py::dict result;
    result["y"] = y, result["h_n"] = h_n, result["c_n"] = c_n, result["saved"] = saved, result["cells"] = cells;
    result["plan"] = plan_dict(plan);
    return result;
  }

  py::dict backward(const BackwardArguments& b) {
    if (b.mask.size() != 3 + a_.weights.size())
      wrong(operation_, "output_mask: expected " + std::to_string(3 + a_.weights.size()) + " values, got " +
                            std::to_string(b.mask.size()));
    CudaBackward<S> args;
    const std::vector<int64_t> lengths = b.lengths ? *b.lengths : all_lengths();
    if (lengths.size() != (a_.batch_sizes ? static_cast<size_t>(B) : 0))
      wrong(operation_, "lengths: expected one of each sample of a packed batch");
    if (a_.batch_sizes) in.sequence.lengths = lengths.data();
    args.in = in;
    args.bptt = {b.clip_value != 0  ? Bptt::kValue
                 : b.clip_norm != 0 ? Bptt::kNorm
                                    : Bptt::kNone,
                 b.clip_value != 0 ? b.clip_value : b.clip_norm, b.steps, b.behind};
    py::array record = unset<V>({b.record ? D : 0, N, kRecorded});
    args.record = data_of<V>(record);
    args.y = checked<S>(operation_, "y", b.y, rows({D * P}));
    args.saved = checked<V>(operation_, "saved", b.saved, {D, N, cell_.saved * H});
    args.cells = checked<V>(operation_, "cells", b.cells, {cell_.has_cell ? D : 0, N, H});
    args.grad_y = checked<S>(operation_, "grad_y", b.grad_y, rows({D * P}));
    args.grad_h_n = checked<S>(operation_, "grad_h_n", b.grad_h_n, {D, B, P});
    if (cell_.has_cell) args.grad_c_n = checked<S>(operation_, "grad_c_n", b.grad_c_n, {D, B, H});
    py::dict result;
    const auto asked = [&](bool wanted, const Extents& shape, py::object& to) -> S* {
      to = py::none();
      if (!wanted) return nullptr;
      py::array a = unset<S>(shape);
      to = a;
      return data_of<S>(a);
    };
    py::object grad_x, grad_h0, grad_c0;
    args.grad_x = asked(b.mask[0], rows({I}), grad_x);
    args.grad_h0 = asked(b.mask[1], {D, B, P}, grad_h0);
    args.grad_c0 = asked(b.mask[2] && cell_.has_cell, {D, B, H}, grad_c0);
    std::vector<py::object> grad_weights(a_.weights.size());
    for (int d = 0; d < D; ++d) {
      S** const targets[] = {&args.grad_w_ih[d], &args.grad_w_hh[d], &args.grad_b_ih[d], &args.grad_b_hh[d],
                             &args.grad_w_hr[d]};
      for (size_t k = 0; k < each_; ++k) {
        const size_t i = static_cast<size_t>(d) * each_ + k;
        const bool is_projection = in.projection && k + 1 == each_;
        const py::array& w = a_.weights[i];
        *targets[is_projection ? 4 : k] =
            asked(b.mask[3 + i], Extents(w.shape(), w.shape() + w.ndim()), grad_weights[i]);
      }
    }
    Status status;
    {
      const py::gil_scoped_release release;
      const Workspace space(backward_workspace_bytes(kind_, args, plan));
      status = layer_backward(kind_, args, plan, space.get(), host_gemm(), Stream{});
    }
    throw_if_failed(status);
    result["grad_x"] = grad_x, result["grad_h0"] = grad_h0, result["grad_c0"] = grad_c0;
    result["grad_weights"] = grad_weights;
    result["record"] = b.record ? py::object(record) : py::none();
    result["plan"] = plan_dict(plan);
    return result;
  }

 private:
  // The steps of each sample of a packed batch.
  std::vector<int64_t> all_lengths() const {
    std::vector<int64_t> result;
    for (int64_t t = a_.batch_sizes ? T : 0; t-- > 0;)
      result.resize(static_cast<size_t>((*a_.batch_sizes)[static_cast<size_t>(t)]), t + 1);
    return result;
  }

  // Shape of what has one row for each (t, b).
  Extents rows(std::initializer_list<py::ssize_t> last) const {
    Extents shape = a_.batch_sizes ? Extents{N} : Extents{T, B};
    shape.insert(shape.end(), last);
    return shape;
  }

  void read_sizes() {
    const py::array& x = a_.x;
    const int dims = a_.batch_sizes ? 2 : 3;
    if (x.ndim() != dims)
      wrong(operation_, "x: expected " + std::to_string(dims) + " dimensions, got " + std::to_string(x.ndim()));
    I = x.shape(dims - 1);
    if (a_.batch_sizes) {
      const std::vector<int64_t>& sizes = *a_.batch_sizes;
      T = static_cast<int64_t>(sizes.size());
      if (T == 0 || sizes.back() < 1 || !std::is_sorted(sizes.rbegin(), sizes.rend()))
        wrong(operation_, "batch_sizes: expected sizes of at least 1 that never grow");
      B = sizes[0];
      offsets_.push_back(0);
      for (const int64_t size : sizes) offsets_.push_back(offsets_.back() + size);
      N = offsets_.back();
    } else {
      T = x.shape(0), B = x.shape(1), N = T * B;
    }
    D = a_.bidirectional ? 2 : 1;
    if (a_.weights.empty() || a_.weights.size() % static_cast<size_t>(D) != 0)
      wrong(operation_, "weights: expected as many for each direction, got " + std::to_string(a_.weights.size()));
    each_ = a_.weights.size() / static_cast<size_t>(D);
    const size_t least = a_.has_biases ? 4 : 2;
    if (each_ != least && each_ != least + 1)
      wrong(operation_, "weights: expected " + std::to_string(least) +
                            " of a direction, or one more with a projection" + ", got " + std::to_string(each_));
    in.projection = each_ == least + 1;
    const py::array& w_hh = a_.weights[1];
    if (w_hh.ndim() != 2 || w_hh.shape(0) % cell_.gates != 0) wrong(operation_, "weights[1]: expected [G*H, P]");
    H = w_hh.shape(0) / cell_.gates, P = w_hh.shape(1);
  }

  void read_inputs() {
    const int64_t rows_of_gates = cell_.gates * H;
    in.sequence = {T, B, a_.batch_sizes ? a_.batch_sizes->data() : nullptr,
                   a_.batch_sizes ? offsets_.data() : nullptr};
    in.I = I, in.H = H, in.P = P;
    in.directions = static_cast<int>(D);
    in.reversed = a_.reversed;
    in.variant = cell_.variant;
    in.x = checked<S>(operation_, "x", a_.x, rows({I}), true);
    const auto stride = [&](int dim) { return static_cast<int64_t>(a_.x.strides(dim) / a_.x.itemsize()); };
    in.x_step = a_.batch_sizes ? 0 : stride(0);
    in.x_row = stride(a_.batch_sizes ? 0 : 1);
    in.h0 = checked<S>(operation_, "h0", a_.h0, {D, B, P});
    if (cell_.has_cell) in.c0 = checked<S>(operation_, "c0", a_.c0, {D, B, H});
    for (int d = 0; d < D; ++d) {
      const auto weight = [&](size_t k, const Extents& shape) {
        const size_t i = static_cast<size_t>(d) * each_ + k;
        return checked<S>(operation_, ("weights[" + std::to_string(i) + "]").c_str(), a_.weights[i], shape);
      };
      LayerWeights<S>& w = in.weights[d];
      w.w_ih = weight(0, {rows_of_gates, I});
      w.w_hh = weight(1, {rows_of_gates, P});
      if (a_.has_biases) w.b_ih = weight(2, {rows_of_gates}), w.b_hh = weight(3, {rows_of_gates});
      if (in.projection) w.w_hr = weight(each_ - 1, {P, H});
    }
  }

  const char* operation_;
  const LayerArguments& a_;
  const CellKind kind_;
  const CellInfo& cell_;
  std::vector<int64_t> offsets_;
  size_t each_ = 0;

 public:
  int64_t T = 0, B = 0, I = 0, H = 0, P = 0, N = 0;
  py::ssize_t D = 1;
  LayerInputs<S> in;
  CudaPlan plan;
};

template <class Run>
py::dict by_dtype(const char* operation, const std::string& name, const Run& run) {
  switch (dtype_of(operation, name)) {
    case CudaDtype::kFloat:
      return run(float{});
    case CudaDtype::kDouble:
      return run(double{});
    case CudaDtype::kHalf:
      return run(Half{});
    default:
      return run(BFloat16{});
  }
}

}  // namespace

py::dict run_layer_forward(const LayerArguments& a, bool save) {
  return by_dtype("layer_forward", a.dtype, [&](auto s) {
    return LayerCall<decltype(s)>("layer_forward", a, save, false, false).forward(save);
  });
}

py::dict run_layer_backward(const LayerArguments& a, const BackwardArguments& b) {
  if (b.behind < 0) wrong("layer_backward", "behind: expected 0 or more");
  if (b.clip_value < 0 || b.clip_norm < 0 || (b.clip_value > 0 && b.clip_norm > 0) || b.steps < 0)
    wrong("layer_backward", "expected one positive clip_value or clip_norm, or none, and steps of at least 0");
  return by_dtype("layer_backward", a.dtype, [&](auto s) {
    return LayerCall<decltype(s)>("layer_backward", a, true, true, b.clip_norm > 0).backward(b);
  });
}

}  // namespace RNNFAST_NAMESPACE
