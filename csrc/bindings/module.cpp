// SPDX-License-Identifier: Apache-2.0
// rnnfast._C: importing it loads the ops (their static initialisers); it answers questions about this build.
#include <torch/csrc/utils/pybind.h>

#include <ATen/Functions.h>
#include <ATen/Parallel.h>

#include "bindings/direct.h"
#include "bindings/explain_cuda.h"
#include "bindings/frozen.h"
#include "bindings/limits.h"
#include "bindings/machine.h"
#include "bindings/recorder.h"
#include "bindings/stream.h"
#include "cpu/kernels.h"
#include "cpu/plan_stack.h"

#ifndef RNNFAST_VERSION
#error "RNNFAST_VERSION must be defined by the build"
#endif

namespace py = pybind11;

namespace rnnfast {
namespace {

std::vector<std::string> names(const std::vector<const Kernels*>& list) {
  std::vector<std::string> result;
  for (const Kernels* k : list) result.emplace_back(k->name);
  return result;
}

Activation activation_named(const std::string& name) {
  if (name == "exp") return Activation::kExp;
  if (name == "tanh") return Activation::kTanh;
  if (name == "sigmoid") return Activation::kSigmoid;
  throw std::invalid_argument("rnnfast: activation: name: expected exp, tanh or sigmoid, got '" + name + "'");
}

at::Tensor apply_activation(const std::string& name, const at::Tensor& input) {
  const Activation which = activation_named(name);
  TORCH_CHECK(input.device().is_cpu() && (input.scalar_type() == at::kFloat || input.scalar_type() == at::kDouble),
              "rnnfast: activation: tensor: expected float32 or float64 on the CPU, got ", input.toString());
  const at::Tensor in = input.contiguous();
  at::Tensor out = at::empty_like(in);
  if (in.scalar_type() == at::kFloat) {
    kernels().activation_f32(which, in.const_data_ptr<float>(), out.mutable_data_ptr<float>(), in.numel());
  } else {
    kernels().activation_f64(which, in.const_data_ptr<double>(), out.mutable_data_ptr<double>(), in.numel());
  }
  return out;
}

py::dict explain_layer(const std::string& cell, int64_t T, int64_t B, int64_t I, int64_t H, int64_t P,
                       int directions, int layers, int element_bytes, bool training, bool prepacked) {
  const CellInfo& info = cell_info(cell_named(cell));
  TORCH_CHECK(element_bytes == 4 || element_bytes == 8,
              "rnnfast: explain_layer: element_bytes: expected 4 or 8, got ", element_bytes);
  LayerShape shape;
  shape.T = T, shape.B = B, shape.I = I, shape.H = H, shape.P = P;
  shape.gates = info.gates;
  shape.directions = directions;
  shape.element_bytes = element_bytes;
  shape.projection = P != H;
  shape.training = training;
  shape.prepacked = prepacked;
  const Machine machine = this_machine();
  const LayerPlan plan = plan_forward(shape, machine);
  const LayerPlan back = plan_backward(shape, machine);
  py::dict result;
  result["isa"] = kernels().name;
  result["lanes"] = kernels().vector_bytes / element_bytes;
  result["threads"] = plan.threads;
  result["groups"] = plan.groups;
  result["decomposition"] = to_string(plan.split);
  result["weights"] = to_string(plan.weights);
  result["chunk_steps"] = plan.chunk_steps;
  result["l2_bytes"] = machine.l2_bytes;
  if (training) {
    result["backward_decomposition"] = to_string(back.split);
    result["backward_chunk_steps"] = back.chunk_steps;
  }
  result["flops"] =
      (training ? 3.0 : 1.0) * 2.0 * double(T) * double(B) * directions * info.gates * double(H) * double(I + P);
  if (!training) {  // a stack of layers in inference; see cpu/plan_stack.h
    const StackPlan stack = plan_stack(shape, layers, machine);
    if (stack.stages > 1) result["threads"] = stack.threads;
    result["stages"] = stack.stages;
    result["stack_steps"] = stack.chunk_steps;
  }
  result["thread_limit"] = team_limit_reason() ? team_limit_reason() : "";
  return result;
}

}  // namespace
}  // namespace rnnfast

PYBIND11_MODULE(TORCH_EXTENSION_NAME, m) {
  using namespace rnnfast;
  m.doc() = "rnnfast's compiled core: loads the ops and answers questions about the build.";
  kernels();  // so that a wrong RNNFAST_ISA is reported at import
  m.def("version", [] { return RNNFAST_VERSION; });
  m.def("isa", [] { return kernels().name; });
  m.def("isas_built", [] { return names(kernels_built()); });
  m.def("isas_available", [] { return names(kernels_available()); });
  m.def("set_isa", &use_isa, py::arg("name"));
  m.def("threads", [] { return this_machine().threads; });
  m.def("activation", &apply_activation, py::arg("name"), py::arg("tensor"));
  m.def("fma_peak", &fma_peak, py::arg("threads") = 1, py::call_guard<py::gil_scoped_release>());
  m.def("read_bandwidth", &read_bandwidth, py::arg("bytes_per_thread"), py::arg("threads") = 1,
        py::call_guard<py::gil_scoped_release>());
  m.def("cells", [] {
    std::vector<std::string> result;
    for (int i = 0; i < kCellCount; ++i) result.emplace_back(cell_info(CellKind(i)).name);
    return result;
  });
  m.def("explain_layer", &explain_layer, py::arg("cell"), py::arg("T"), py::arg("B"), py::arg("I"), py::arg("H"),
        py::arg("P"), py::arg("directions"), py::arg("layers"), py::arg("element_bytes"), py::arg("training"),
        py::arg("prepacked"));
  py::class_<FrozenStack, std::shared_ptr<FrozenStack>>(m, "FrozenStack")
      .def(py::init([](const std::string& cell, const std::vector<std::vector<at::Tensor>>& layers, bool has_biases,
                       bool bidirectional) {
             return std::make_shared<FrozenStack>(cell_named(cell), layers, has_biases, bidirectional);
           }),
           py::arg("cell"), py::arg("layers"), py::arg("has_biases"), py::arg("bidirectional"))
      .def("forward", &FrozenStack::forward, py::arg("x"), py::arg("h0") = py::none(), py::arg("c0") = py::none(),
           py::arg("batch_sizes") = py::none(), py::call_guard<py::gil_scoped_release>())
      .def_property_readonly("bytes", &FrozenStack::bytes);
  m.def("open_recorder", &open_recorder, py::arg("again") = 0);
  m.def("recorded", &recorded, py::arg("recorder"));
  m.def("close_recorder", &close_recorder, py::arg("recorder"));
  define_stream(m);
  define_direct(m);
  define_explain_cuda(m);
}
