// SPDX-License-Identifier: Apache-2.0
// rnnfast._emulator: the CUDA kernels on the host (docs/emulator.md). For tests; NumPy arrays, no torch.
#include "bindings/emulator/layer.h"
#include "emulator/machine.h"

namespace RNNFAST_NAMESPACE {
namespace {

LayerArguments layer_arguments(std::string cell, py::array x, OptionalArray h0, OptionalArray c0,
                               std::vector<py::array> weights, std::optional<std::vector<int64_t>> batch_sizes,
                               bool has_biases, bool bidirectional, bool reversed, std::string dtype,
                               std::string path, bool tf32) {
  return {std::move(cell),    std::move(x),           std::move(h0),   std::move(c0),
          std::move(weights), std::move(batch_sizes), has_biases,      bidirectional,
          reversed,           std::move(dtype),       std::move(path), tf32};
}

py::dict statistics() {
  const emulator::Statistics s = emulator::statistics();
  py::dict d;
  d["launches"] = s.launches, d["fibers"] = s.fibers, d["switches"] = s.switches, d["accesses"] = s.accesses;
  return d;
}

}  // namespace
}  // namespace RNNFAST_NAMESPACE

PYBIND11_MODULE(_emulator, m) {
  using namespace RNNFAST_NAMESPACE;
  namespace emulator = rnnfast::emulator;
  using pybind11::arg;

  m.def("devices", &rnnfast::cuda_device_names, "Names that set_device knows.");
  m.def(
      "set_device",
      [](const std::string& name, int processors) {
        if (!emulator::set_device(name, processors))
          throw py::value_error("set_device: expected one of devices() and at least 0 processors, got '" + name +
                                "' and " + std::to_string(processors));
      },
      arg("name"), arg("processors") = 0, "processors: how many multiprocessors; 0: as many as it has.");
  m.def("device", [] { return std::string(emulator::device().name); });
  m.def("set_seed", &emulator::set_seed, arg("seed"), "Of the order in which threads run.");
  m.def("set_race_check", &emulator::set_race_check, arg("check"));
  m.def("launches", &statistics, "Since the process began: launches, fibers, switches, checked accesses.");
  m.def(
      "set_mutation", [](const std::optional<std::string>& name) { emulator::set_mutation(name.value_or("")); },
      arg("name").none(true), "The one place at which kernels are broken, RNNFAST_MUTATION(name); None: none.");
  m.def("mutation_hits", &emulator::mutation_hits, "How often the mutation that is on was met.");

  m.def(
      "layer_forward",
      [](std::string cell, py::array x, OptionalArray h0, OptionalArray c0, std::vector<py::array> weights,
         std::optional<std::vector<int64_t>> batch_sizes, bool has_biases, bool bidirectional, bool save,
         std::string dtype, std::string path, bool tf32, bool reversed) {
        return run_layer_forward(layer_arguments(cell, x, h0, c0, weights, batch_sizes, has_biases, bidirectional,
                                                 reversed, dtype, path, tf32),
                                 save);
      },
      arg("cell"), arg("x"), arg("h0").none(true), arg("c0").none(true), arg("weights"),
      arg("batch_sizes").none(true), arg("has_biases"), arg("bidirectional"), arg("save"), pybind11::kw_only(),
      arg("dtype") = "float32", arg("path") = "best", arg("tf32") = false, arg("reversed") = false,
      "A layer's forward pass, as the op of the same cell: y, h_n, c_n, saved, cells; and the plan.");

  m.def(
      "layer_backward",
      [](OptionalArray grad_y, OptionalArray grad_h_n, OptionalArray grad_c_n, std::string cell, py::array x,
         OptionalArray h0, OptionalArray c0, std::vector<py::array> weights,
         std::optional<std::vector<int64_t>> batch_sizes, bool has_biases, bool bidirectional, py::array y,
         py::array saved, py::array cells, std::vector<bool> output_mask, std::string dtype, std::string path,
         bool tf32, bool reversed, double clip_value, double clip_norm, int64_t steps, bool record, int64_t behind,
         std::optional<std::vector<int64_t>> lengths) {
        return run_layer_backward(layer_arguments(cell, x, h0, c0, weights, batch_sizes, has_biases, bidirectional,
                                                  reversed, dtype, path, tf32),
                                  {grad_y, grad_h_n, grad_c_n, y, saved, cells, output_mask, clip_value, clip_norm,
                                   steps, record, behind, lengths});
      },
      arg("grad_y").none(true), arg("grad_h_n").none(true), arg("grad_c_n").none(true), arg("cell"), arg("x"),
      arg("h0").none(true), arg("c0").none(true), arg("weights"), arg("batch_sizes").none(true), arg("has_biases"),
      arg("bidirectional"), arg("y"), arg("saved"), arg("cells"), arg("output_mask"), pybind11::kw_only(),
      arg("dtype") = "float32", arg("path") = "best", arg("tf32") = false, arg("reversed") = false,
      arg("clip_value") = 0.0, arg("clip_norm") = 0.0, arg("steps") = 0, arg("record") = false, arg("behind") = 0,
      arg("lengths").none(true) = std::nullopt,
      "Its backward pass: grad_x, grad_h0, grad_c0, grad_weights, record (None where not asked for); and the "
      "plan.");
}
