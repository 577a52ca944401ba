// SPDX-License-Identifier: Apache-2.0
#include "bindings/direct.h"

#include <ATen/ops/transpose.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/Exceptions.h>
#include <torch/csrc/autograd/python_variable.h>

#include <algorithm>
#include <cctype>
#include <optional>

#include "bindings/frozen.h"
#include "bindings/plain.h"
#include "bindings/workspace.h"

namespace py = pybind11;

namespace rnnfast {
namespace {

// Interned once; they live as long as the process.
struct Names {
  PyObject *parameters, *names, *input_size, *hidden_size, *num_layers, *bias, *batch_first, *dropout,
      *bidirectional, *proj_size, *training, *w_ih, *w_hh, *b_ih, *b_hh;
};
const Names& names() {
  static const Names n = [] {
    const auto intern = [](const char* s) { return PyUnicode_InternFromString(s); };
    return Names{intern("_parameters"),   intern("_flat_weights_names"),
                 intern("input_size"),    intern("hidden_size"),
                 intern("num_layers"),    intern("bias"),
                 intern("batch_first"),   intern("dropout"),
                 intern("bidirectional"), intern("proj_size"),
                 intern("training"),      intern("weight_ih"),
                 intern("weight_hh"),     intern("bias_ih"),
                 intern("bias_hh")};
  }();
  return n;
}

// The cell that a module's `mode` names: "LSTM", "GRU", "RNN_TANH", ...
std::optional<CellKind> kind_of_mode(PyObject* mode) {
  static PyObject* const modes = [] {
    PyObject* dict = PyDict_New();
    for (int i = 0; i < kCellCount; ++i) {
      std::string name = cell_info(CellKind(i)).name;
      for (char& c : name) c = char(std::toupper(static_cast<unsigned char>(c)));
      PyObject* value = PyLong_FromLong(i);
      PyDict_SetItemString(dict, name.c_str(), value);
      Py_DECREF(value);
    }
    return dict;
  }();
  PyObject* index = PyDict_GetItemWithError(modes, mode);
  if (index == nullptr) {
    PyErr_Clear();
    return std::nullopt;
  }
  return CellKind(PyLong_AsLong(index));
}

// A plain tensor that wants no gradient, or null.
const at::Tensor* plain_tensor(PyObject* object, bool grad) {
  if (object == nullptr || !THPVariable_CheckExact(object)) return nullptr;
  const at::Tensor& t = THPVariable_Unpack(object);
  if (!is_plain(t) || (grad && t.requires_grad())) return nullptr;
  // Forward-mode tangents survive no_grad.
  const c10::TensorImpl* impl = t.unsafeGetTensorImpl();
  if (impl->autograd_meta() && t._fw_grad(0).defined()) return nullptr;
  return &t;
}

// A contiguous one of this shape and dtype.
const at::Tensor* matching(PyObject* object, bool grad, at::ScalarType dtype, at::IntArrayRef shape) {
  const at::Tensor* t = plain_tensor(object, grad);
  return t && t->scalar_type() == dtype && t->sizes() == shape && t->is_contiguous() ? t : nullptr;
}

bool integer(PyObject* dict, PyObject* name, int64_t& value) {
  PyObject* item = PyDict_GetItemWithError(dict, name);
  if (item == nullptr || !PyLong_Check(item)) return false;
  value = PyLong_AsLongLong(item);
  return true;
}

bool flag(PyObject* dict, PyObject* name, bool& value) {
  PyObject* item = PyDict_GetItemWithError(dict, name);
  if (item != Py_True && item != Py_False) return false;
  value = item == Py_True;
  return true;
}

// A call as far as it does not depend on the element type.
struct Direct {
  CellKind kind = CellKind(0);
  at::ScalarType dtype = at::kFloat;
  bool grad = false;  // grad mode is on: nothing may require a gradient
  const at::Tensor* x = nullptr;
  int64_t T = 1, B = 1, x_step = 0, x_row = 0;
  int64_t I = 0, H = 0, P = 0, layers = 1, directions = 1;
  bool biases = true, projection = false;
  const at::Tensor *h0 = nullptr, *c0 = nullptr;
  std::vector<const at::Tensor*> weights;
  at::Tensor y, h_n, c_n;

  // x: its dtype, and room for more checks.
  bool take_input(PyObject* input) {
    if (!nothing_watches()) return false;
    grad = c10::GradMode::is_enabled();
    x = plain_tensor(input, grad);
    if (x == nullptr) return false;
    dtype = x->scalar_type();
    return dtype == at::kFloat || dtype == at::kDouble;
  }

  bool take_state(PyObject* hx, at::IntArrayRef h_shape, at::IntArrayRef c_shape) {
    if (hx == Py_None) return true;
    if (!cell_info(kind).has_cell) {
      h0 = matching(hx, grad, dtype, h_shape);
      return h0 != nullptr;
    }
    if (!PyTuple_CheckExact(hx) || PyTuple_GET_SIZE(hx) != 2) return false;
    h0 = matching(PyTuple_GET_ITEM(hx, 0), grad, dtype, h_shape);
    c0 = matching(PyTuple_GET_ITEM(hx, 1), grad, dtype, c_shape);
    return h0 != nullptr && c0 != nullptr;
  }

  // The weight that comes next in the order of the layer ops.
  bool take_weight(PyObject* object, at::IntArrayRef shape) {
    weights.push_back(matching(object, grad, dtype, shape));
    return weights.back() != nullptr;
  }

  template <class E>
  void run() const {
    const CellInfo& cell = cell_info(kind);
    StackLayer<E> few[4];
    std::vector<StackLayer<E>> many;
    StackLayer<E>* list = few;
    if (layers > 4) many.resize(size_t(layers)), list = many.data();
    size_t next = 0;
    const auto pointer = [&] { return weights[next++]->const_data_ptr<E>(); };
    for (int64_t l = 0; l < layers; ++l)
      for (int64_t d = 0; d < directions; ++d) {
        LayerWeights<E>& w = list[l].weights[d];
        w.w_ih = pointer(), w.w_hh = pointer();
        if (biases) w.b_ih = pointer(), w.b_hh = pointer();
        if (projection) w.w_hr = pointer();
      }
    StackCall<E> call;
    call.kind = kind;
    call.in.sequence.T = T, call.in.sequence.B = B;
    call.in.I = I, call.in.H = H, call.in.P = P;
    call.in.directions = int(directions);
    call.in.variant = cell.variant;
    call.in.projection = projection;
    call.in.x = x->const_data_ptr<E>();
    call.in.x_step = x_step, call.in.x_row = x_row;
    if (h0) call.in.h0 = h0->const_data_ptr<E>();
    if (c0) call.in.c0 = c0->const_data_ptr<E>();
    call.layers = list;
    call.count = int(layers);
    call.y = y.mutable_data_ptr<E>();
    call.h_n = h_n.mutable_data_ptr<E>();
    if (cell.has_cell) call.c_n = c_n.mutable_data_ptr<E>();
    std::vector<at::Tensor> held;
    std::optional<py::gil_scoped_release> released;
    if (T * stack_step_work(shape_of(call), call.count) >= kLongWork) {
      // Another thread may put other parameters into the module meanwhile.
      held.reserve(weights.size());
      for (const at::Tensor* w : weights) held.push_back(*w);
      released.emplace();
      prefer_huge_pages(y.mutable_data_ptr(), int64_t(y.nbytes()));
    }
    call_stack(kernels(), call);
  }

  void run() const { dtype == at::kDouble ? run<double>() : run<float>(); }
};

PyObject* pair(PyObject* a, PyObject* b) {
  if (a == nullptr || b == nullptr) {
    Py_XDECREF(a);
    Py_XDECREF(b);
    return nullptr;
  }
  PyObject* result = PyTuple_New(2);
  PyTuple_SET_ITEM(result, 0, a);
  PyTuple_SET_ITEM(result, 1, b);
  return result;
}

bool prepare_layers(Direct& c, PyObject* mode, PyObject* input, PyObject* hx, PyObject* dict, bool& batch_first) {
  if (!PyDict_Check(dict) || !c.take_input(input)) return false;
  const std::optional<CellKind> kind = kind_of_mode(mode);
  if (!kind) return false;
  c.kind = *kind;
  const CellInfo& cell = cell_info(c.kind);
  const Names& n = names();
  int64_t proj = 0;
  bool bidirectional = false, training = false;
  if (!integer(dict, n.input_size, c.I) || !integer(dict, n.hidden_size, c.H) ||
      !integer(dict, n.num_layers, c.layers) || !integer(dict, n.proj_size, proj) ||
      !flag(dict, n.bias, c.biases) || !flag(dict, n.batch_first, batch_first) ||
      !flag(dict, n.bidirectional, bidirectional) || !flag(dict, n.training, training))
    return false;
  if (training && c.layers > 1) {
    PyObject* dropout = PyDict_GetItemWithError(dict, n.dropout);
    if (dropout == nullptr || !PyFloat_Check(dropout) || PyFloat_AS_DOUBLE(dropout) != 0.0) return false;
  }
  c.projection = proj > 0;
  c.P = c.projection ? proj : c.H;
  c.directions = bidirectional ? 2 : 1;

  const int64_t dims = c.x->dim();
  if ((dims != 2 && dims != 3) || c.I < 1 || c.H < 1 || c.layers < 1) return false;
  const int64_t time = dims == 3 && batch_first ? 1 : 0;
  c.T = c.x->size(time);
  c.x_step = c.x->stride(time);
  if (dims == 3) c.B = c.x->size(1 - time), c.x_row = c.x->stride(1 - time);
  if (c.x->size(-1) != c.I || c.T < 1 || c.B < 1 || (c.x->stride(-1) != 1 && c.I > 1)) return false;

  const int64_t states = c.layers * c.directions;
  const int64_t h[] = {states, c.B, c.P}, cc[] = {states, c.B, c.H}, h2[] = {states, c.P}, c2[] = {states, c.H};
  const bool batched = dims == 3;
  const at::IntArrayRef h_shape = batched ? at::IntArrayRef(h) : at::IntArrayRef(h2);
  const at::IntArrayRef c_shape = batched ? at::IntArrayRef(cc) : at::IntArrayRef(c2);
  if (!c.take_state(hx, h_shape, c_shape)) return false;

  PyObject* parameters = PyDict_GetItemWithError(dict, n.parameters);
  PyObject* weight_names = PyDict_GetItemWithError(dict, n.names);
  if (parameters == nullptr || !PyDict_Check(parameters) || weight_names == nullptr || !PyList_Check(weight_names))
    return false;
  const int64_t each = 2 + (c.biases ? 2 : 0) + (c.projection ? 1 : 0);
  if (PyList_GET_SIZE(weight_names) != each * states) return false;
  c.weights.reserve(size_t(each * states));
  const int64_t rows = cell.gates * c.H;
  for (int64_t i = 0; i < each * states; ++i) {
    const int64_t which = i % each;
    const bool hr = c.projection && which == each - 1, matrix = which < 2 || hr;
    const int64_t features = i / each < c.directions ? c.I : c.directions * c.P;
    const int64_t shape[] = {hr ? c.P : rows, hr ? c.H : which == 0 ? features : c.P};
    PyObject* weight = PyDict_GetItemWithError(parameters, PyList_GET_ITEM(weight_names, i));
    if (!c.take_weight(weight, at::IntArrayRef(shape, matrix ? 2 : 1))) return false;
  }

  const int64_t y[] = {c.T, c.B, c.directions * c.P}, y2[] = {c.T, c.directions * c.P};
  c.y = empty_plain(batched ? at::IntArrayRef(y) : at::IntArrayRef(y2), c.dtype);
  c.h_n = empty_plain(h_shape, c.dtype);
  if (cell.has_cell) c.c_n = empty_plain(c_shape, c.dtype);
  return true;
}

// direct_layers(mode, input, hx, the module's __dict__) -> (output, state) or None
PyObject* direct_layers(PyObject*, PyObject* const* args, Py_ssize_t count) {
  HANDLE_TH_ERRORS
  TORCH_CHECK_TYPE(count == 4, "rnnfast: direct_layers: expected 4 arguments, got ", count);
  Direct c;
  bool batch_first = false;
  if (!prepare_layers(c, args[0], args[1], args[2], args[3], batch_first)) {
    PyErr_Clear();
    Py_RETURN_NONE;
  }
  c.run();
  const at::Tensor output = batch_first && c.x->dim() == 3 ? c.y.transpose(0, 1) : c.y;
  PyObject* state = THPVariable_Wrap(c.h_n);
  if (c.c_n.defined()) state = pair(state, THPVariable_Wrap(c.c_n));
  return pair(THPVariable_Wrap(output), state);
  END_HANDLE_TH_ERRORS
}

bool prepare_cell(Direct& c, PyObject* mode, PyObject* input, PyObject* hx, PyObject* parameters) {
  if (!PyDict_Check(parameters) || !c.take_input(input)) return false;
  const std::optional<CellKind> kind = kind_of_mode(mode);
  const int64_t dims = c.x->dim();
  if (!kind || (dims != 1 && dims != 2)) return false;
  c.kind = *kind;
  const CellInfo& cell = cell_info(c.kind);
  const Names& n = names();
  const auto weight = [&](PyObject* name) { return PyDict_GetItemWithError(parameters, name); };
  const at::Tensor *w_ih = plain_tensor(weight(n.w_ih), c.grad), *w_hh = plain_tensor(weight(n.w_hh), c.grad);
  if (!w_ih || !w_hh || w_ih->dim() != 2 || w_hh->dim() != 2) return false;
  c.I = w_ih->size(1), c.H = c.P = w_hh->size(1);
  const int64_t rows = cell.gates * c.H;
  const int64_t ih[] = {rows, c.I}, hh[] = {rows, c.H};
  PyObject *b_ih = weight(n.b_ih), *b_hh = weight(n.b_hh);
  if (b_ih == nullptr || b_hh == nullptr || (b_ih == Py_None) != (b_hh == Py_None)) return false;
  c.biases = b_ih != Py_None;
  c.weights.reserve(4);
  if (!c.take_weight(weight(n.w_ih), ih) || !c.take_weight(weight(n.w_hh), hh)) return false;
  if (c.biases && (!c.take_weight(b_ih, rows) || !c.take_weight(b_hh, rows))) return false;

  if (dims == 2) c.B = c.x->size(0), c.x_row = c.x->stride(0);
  if (c.x->size(-1) != c.I || c.I < 1 || c.H < 1 || c.B < 1 || (c.x->stride(-1) != 1 && c.I > 1)) return false;
  const int64_t shape[] = {c.B, c.H};
  const at::IntArrayRef h_shape(shape + (dims == 1), size_t(dims));
  if (!c.take_state(hx, h_shape, h_shape)) return false;
  // Of one step, the output is the state.
  c.y = c.h_n = empty_plain(h_shape, c.dtype);
  if (cell.has_cell) c.c_n = empty_plain(h_shape, c.dtype);
  return true;
}

// direct_cell(mode, input, hx, the cell's _parameters) -> the state or None
PyObject* direct_cell(PyObject*, PyObject* const* args, Py_ssize_t count) {
  HANDLE_TH_ERRORS
  TORCH_CHECK_TYPE(count == 4, "rnnfast: direct_cell: expected 4 arguments, got ", count);
  Direct c;
  if (!prepare_cell(c, args[0], args[1], args[2], args[3])) {
    PyErr_Clear();
    Py_RETURN_NONE;
  }
  c.run();
  PyObject* h = THPVariable_Wrap(c.h_n);
  return c.c_n.defined() ? pair(h, THPVariable_Wrap(c.c_n)) : h;
  END_HANDLE_TH_ERRORS
}

PyMethodDef kMethods[] = {
    {"direct_layers", reinterpret_cast<PyCFunction>(reinterpret_cast<void*>(direct_layers)), METH_FASTCALL,
     nullptr},
    {"direct_cell", reinterpret_cast<PyCFunction>(reinterpret_cast<void*>(direct_cell)), METH_FASTCALL, nullptr},
    {nullptr, nullptr, 0, nullptr}};

}  // namespace

void define_direct(py::module_& m) {
  if (PyModule_AddFunctions(m.ptr(), kMethods) != 0) throw py::error_already_set();
}

}  // namespace rnnfast
