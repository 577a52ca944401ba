// SPDX-License-Identifier: Apache-2.0
#include "bindings/stream.h"

#include <ATen/Functions.h>
#include <ATen/Parallel.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/Exceptions.h>
#include <torch/csrc/autograd/python_variable.h>

#include <algorithm>
#include <optional>

#include "bindings/layer_ops.h"
#include "bindings/machine.h"
#include "bindings/plain.h"

namespace py = pybind11;

namespace rnnfast {
namespace {

constexpr const char* kName = "rnnfast.Stream";

// Rows of a half-precision chunk that are converted at a time.
constexpr int64_t kConvertedRows = 1024;

class Busy {
 public:
  explicit Busy(bool& flag) : flag_(flag) {
    TORCH_CHECK(!flag, kName, ": a stream is at work in another thread; give each thread a stream of its own");
    flag = true;
  }
  ~Busy() { flag_ = false; }

 private:
  bool& flag_;
};

}  // namespace

StreamEngine::StreamEngine(std::shared_ptr<const FrozenStack> stack, int64_t batch) : stack_(std::move(stack)) {
  TORCH_CHECK(batch >= 1, kName, ": batch_size: expected at least 1, got ", batch);
  const LayerSizes& s = stack_->sizes();
  TORCH_CHECK(s.directions == 1, kName, ": expected one direction, got two");
  B_ = batch, I_ = s.I, P_ = s.P;
  const at::TensorOptions options(stack_->inner_dtype());
  const int64_t L = stack_->count();
  h_ = at::zeros({L, B_, P_}, options);
  if (cell_info(stack_->kind()).has_cell) c_ = at::zeros({L, B_, s.H}, options);
  stack_->inner_dtype() == at::kDouble ? prepare<double>() : prepare<float>();
}

void StreamEngine::set_stack(std::shared_ptr<const FrozenStack> stack) {
  const Busy busy(busy_);
  const LayerSizes &now = stack_->sizes(), &next = stack->sizes();
  TORCH_CHECK_VALUE(
      now.I == next.I && now.H == next.H && now.P == next.P && stack->count() == stack_->count() &&
          stack->dtype() == stack_->dtype() && stack->kind() == stack_->kind(),
      kName, ".refresh: expected a module of the sizes and dtype that the stream began with: ", stack_->count(),
      " layer(s), I=", now.I, ", H=", now.H, ", P=", now.P, ", ", stack_->dtype(), "; got ", stack->count(),
      " layer(s), I=", next.I, ", H=", next.H, ", P=", next.P, ", ", stack->dtype());
  stack_ = std::move(stack);
  planned_threads_ = 0;
  stack_->inner_dtype() == at::kDouble ? prepare<double>() : prepare<float>();
}

template <class T>
void StreamEngine::prepare() {
  Steps<T>& to = steps<T>();
  const LayerSizes& s = stack_->sizes();
  to.layers = stack_->layers<T>();
  StackCall<T>& call = to.call;
  call = StackCall<T>();
  call.kind = stack_->kind();
  const CellInfo& cell = cell_info(call.kind);
  call.in.sequence.T = 1, call.in.sequence.B = B_;
  call.in.I = I_, call.in.H = s.H, call.in.P = P_;
  call.in.variant = cell.variant;
  call.in.projection = s.projection;
  call.in.h0 = call.h_n = h_.mutable_data_ptr<T>();
  if (cell.has_cell) call.in.c0 = call.c_n = c_.mutable_data_ptr<T>();
  call.layers = to.layers.data();
  call.count = stack_->count();
  shape_ = shape_of(call);
  step_work_ = stack_step_work(shape_, call.count);
  plan_steps<T>(this_machine().threads);
}

template <class T>
void StreamEngine::plan_steps(int threads) {
  Machine machine = this_machine();
  machine.threads = planned_threads_ = threads;
  plan_ = plan_stack(shape_, stack_->count(), machine);
  space_ = stack_space(cell_info(stack_->kind()), shape_, stack_->count(), plan_,
                       stack_->target().vector_bytes / int(sizeof(T)));
  if (!memory_.defined() || memory_.numel() < space_.size)
    memory_ = at::empty({space_.size}, at::TensorOptions(stack_->inner_dtype()));
}

template <class T>
void StreamEngine::advance(const T* x, int64_t T_steps, int64_t x_step, int64_t x_row, T* y) {
  StackCall<T>& call = steps<T>().call;
  if (T_steps == 1) {
    // A step that one thread does is planned alike whatever the number of threads.
    if (plan_.threads > 1 || planned_threads_ == 1) {
      const int threads = this_machine().threads;
      if (threads != planned_threads_) plan_steps<T>(threads);
    }
    call.in.x = x;
    call.in.x_row = x_row;
    call.y = y;
    run_stack(stack_->target(), call, plan_, space_, memory_.mutable_data_ptr<T>());
    return;
  }
  StackCall<T> chunk = call;
  chunk.in.sequence.T = T_steps;
  chunk.in.x = x;
  chunk.in.x_step = x_step;
  chunk.in.x_row = x_row;
  chunk.y = y;
  call_stack(stack_->target(), chunk);
}

// float16 and bfloat16: computed in float32, converted some rows at a time.
void StreamEngine::advance_reduced(const at::Tensor& x, int64_t steps, at::Tensor& out) {
  const at::Tensor x3 = x.dim() == 3 ? x : x.unsqueeze(0), out3 = x.dim() == 3 ? out : out.unsqueeze(0);
  const int64_t part = std::max<int64_t>(1, kConvertedRows / B_);
  for (int64_t t = 0; t < steps; t += part) {
    const int64_t n = std::min(part, steps - t);
    const at::Tensor from = x3.narrow(0, t, n).to(at::kFloat).contiguous();
    const at::Tensor to = at::empty({n, B_, P_}, from.options());
    advance<float>(from.const_data_ptr<float>(), n, B_ * I_, I_, to.mutable_data_ptr<float>());
    out3.narrow(0, t, n).copy_(to);
  }
}

void StreamEngine::refuse_input(const at::Tensor& x) const {
  TORCH_CHECK(is_plain(x), kName,
              ": x: expected a dense CPU tensor that is not part of a transform, mode or trace, "
              "got ",
              x.toString());
  TORCH_CHECK(x.scalar_type() == stack_->dtype(), kName, ": x: expected dtype ", stack_->dtype(),
              " as the weights, got ", x.scalar_type());
  TORCH_CHECK(x.dim() == 2 || x.dim() == 3, kName, ": x: expected shape [", B_, ", ", I_, "] (a step) or [T, ", B_,
              ", ", I_, "] (a chunk), got ", x.sizes());
  TORCH_CHECK(x.size(-2) == B_ && x.size(-1) == I_, kName, ": x: expected batch_size=", B_, " and ", I_,
              " features, got shape ", x.sizes());
  TORCH_CHECK(false, kName, ": x: expected at least one time step, got shape ", x.sizes());
}

void StreamEngine::check_out(const at::Tensor& out, const at::Tensor& x, int64_t steps) const {
  TORCH_CHECK(is_plain(out), kName, ": out: expected a dense CPU tensor, got ", out.toString());
  TORCH_CHECK(out.scalar_type() == stack_->dtype(), kName, ": out: expected dtype ", stack_->dtype(), ", got ",
              out.scalar_type());
  const int64_t shape[] = {steps, B_, P_};
  const at::IntArrayRef expected(shape + (x.dim() == 2), size_t(x.dim()));
  TORCH_CHECK(out.sizes() == expected && out.is_contiguous(), kName,
              ": out: expected a contiguous tensor of shape ", expected, ", got shape ", out.sizes(), ", strides ",
              out.strides());
  TORCH_CHECK(!out.requires_grad(), kName,
              ": out: expected a tensor that requires no gradient, as a stream has none");
  // x may have gaps; what lies within its extent counts as its own.
  int64_t extent = 1;
  for (int64_t d = 0; d < x.dim(); ++d) extent += (x.size(d) - 1) * std::abs(x.stride(d));
  const char *a = static_cast<const char*>(x.const_data_ptr()), *b = static_cast<const char*>(out.const_data_ptr());
  const int64_t bytes = int64_t(x.element_size());
  TORCH_CHECK(a + extent * bytes <= b || b + out.numel() * bytes <= a, kName,
              ": out: expected memory apart from that of x, got an overlap");
}

at::Tensor StreamEngine::run(const at::Tensor& x_in, const at::Tensor* out_given) {
  const int64_t dims = x_in.dim();
  const int64_t steps = dims == 3 ? x_in.size(0) : 1;
  if (!is_plain(x_in) || x_in.scalar_type() != stack_->dtype() || (dims != 2 && dims != 3) ||
      x_in.size(dims - 2) != B_ || x_in.size(dims - 1) != I_ || steps == 0)
    refuse_input(x_in);
  const Busy busy(busy_);
  const at::Tensor* x = &x_in;
  std::optional<at::Tensor> copy;
  if (x_in.stride(dims - 1) != 1 && I_ > 1) x = &copy.emplace(x_in.contiguous());
  at::Tensor out;
  if (out_given) {
    check_out(*out_given, x_in, steps);
    out = *out_given;
    if (!out.is_inference()) out.unsafeGetTensorImpl()->bump_version();
  } else {
    const int64_t shape[] = {steps, B_, P_};
    const at::IntArrayRef sizes(shape + (dims == 2), size_t(dims));
    out = empty_plain(sizes, stack_->dtype());
  }
  std::optional<py::gil_scoped_release> released;
  if (steps * step_work_ >= kLongWork) released.emplace();
  const int64_t x_step = dims == 3 ? x->stride(0) : 0, x_row = x->stride(dims - 2);
  switch (stack_->dtype()) {
    case at::kFloat:
      advance<float>(x->const_data_ptr<float>(), steps, x_step, x_row, out.mutable_data_ptr<float>());
      break;
    case at::kDouble:
      advance<double>(x->const_data_ptr<double>(), steps, x_step, x_row, out.mutable_data_ptr<double>());
      break;
    default: {
      const c10::NoGradGuard no_grad;
      advance_reduced(*x, steps, out);
    }
  }
  released.reset();
  return out;
}

namespace {

const at::Tensor& tensor_argument(PyObject* object, const char* name) {
  TORCH_CHECK_TYPE(THPVariable_Check(object), kName, ": ", name, ": expected a tensor, got ",
                   Py_TYPE(object)->tp_name);
  return THPVariable_Unpack(object);
}

// stream(x, out=None)
PyObject* stream_call(PyObject* self, PyObject* args, PyObject* kwargs) {
  HANDLE_TH_ERRORS
  PyObject *x = nullptr, *out = nullptr;
  const Py_ssize_t given = PyTuple_GET_SIZE(args);
  if (kwargs == nullptr && given == 1) {
    x = PyTuple_GET_ITEM(args, 0);
  } else {
    static const char* const names[] = {"x", "out", nullptr};
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|O:Stream", const_cast<char**>(names), &x, &out))
      return nullptr;
    if (out == Py_None) out = nullptr;
  }
  auto* instance = reinterpret_cast<py::detail::instance*>(self);
  auto* engine = static_cast<StreamEngine*>(instance->get_value_and_holder().value_ptr());
  TORCH_CHECK_TYPE(engine != nullptr, kName, ": __init__ was not called");
  const at::Tensor& input = tensor_argument(x, "x");
  TORCH_CHECK(!c10::impl::tls_local_dispatch_key_set().included_.has(c10::DispatchKey::Tracer), kName,
              ": a stream runs outside torch's graphs: trace, export or compile the module itself instead");
  if (out == nullptr) return THPVariable_Wrap(engine->run(input, nullptr));
  engine->run(input, &tensor_argument(out, "out"));
  return Py_NewRef(out);
  END_HANDLE_TH_ERRORS
}

}  // namespace

void define_stream(py::module_& m) {
  py::class_<StreamEngine>(
      m, "StreamEngine", py::custom_type_setup([](PyHeapTypeObject* type) { type->ht_type.tp_call = stream_call; }))
      .def(py::init<std::shared_ptr<const FrozenStack>, int64_t>(), py::arg("stack"), py::arg("batch_size"))
      .def("set_stack", &StreamEngine::set_stack, py::arg("stack"))
      .def_property_readonly("_hidden", &StreamEngine::hidden)
      .def_property_readonly("_cell", [](const StreamEngine& e) { return optional(e.cell()); })
      .def_property_readonly("bytes", &StreamEngine::bytes);
}

}  // namespace rnnfast
