// SPDX-License-Identifier: Apache-2.0
#include "bindings/explain_cuda.h"

#include <pybind11/stl.h>

#include <cstdlib>
#include <sstream>
#include <stdexcept>
#include <string>
#include <variant>

#include "bindings/plan_dict.h"

namespace py = pybind11;

namespace rnnfast {
namespace {

std::string joined(const std::vector<std::string>& names) {
  std::string all;
  for (const std::string& name : names) all += (all.empty() ? "" : ", ") + name;
  return all;
}

CudaDevice device_named(const std::string& name) {
  const CudaDevice* device = cuda_device(name);
  if (!device)
    throw std::invalid_argument("rnnfast: explain: device: expected one of " + joined(cuda_device_names()) +
                                ", got '" + name + "'");
  return *device;
}

// As torch.cuda.get_device_properties has it.
CudaDevice device_like(const py::dict& d) {
  const auto number = [&](const char* key) { return d[key].cast<int64_t>(); };
  const int processors = cuda_processors(int(number("processors")));
  return cuda_device_like(int(number("architecture")), processors, int(number("shared_block")),
                          int(number("shared_processor")), int(number("registers")), int(number("threads")),
                          number("l2_bytes"));
}

CudaDtype dtype_named(const std::string& name) {
  for (const CudaDtype dtype : {CudaDtype::kFloat, CudaDtype::kDouble, CudaDtype::kHalf, CudaDtype::kBFloat16})
    if (name == to_string(dtype)) return dtype;
  throw std::invalid_argument("rnnfast: explain: dtype: expected float16, bfloat16, float32 or float64, got '" +
                              name + "'");
}

CellKind kind_named(const std::string& name) {
  for (int i = 0; i < kCellCount; ++i)
    if (name == cell_info(CellKind(i)).name) return CellKind(i);
  throw std::invalid_argument("rnnfast: explain: cell: there is no '" + name + "'");
}

py::dict cost_of(const CudaCost& cost) {
  py::dict parts;
  parts["barrier"] = cost.barrier;
  parts["exchange"] = cost.exchange;
  parts["product"] = cost.product;
  parts["pointwise"] = cost.pointwise;
  parts["launch"] = cost.launch;
  return parts;
}

py::dict explain_cuda(const std::variant<std::string, py::dict>& device, const std::string& cell, int64_t T,
                      int64_t B, int64_t I, int64_t H, int64_t P, int directions, const std::string& dtype,
                      bool backward, bool training, bool tf32, bool clip_norm) {
  const CudaDevice on = std::holds_alternative<std::string>(device) ? device_named(std::get<std::string>(device))
                                                                    : device_like(std::get<py::dict>(device));
  CudaShape shape;
  shape.cell = kind_named(cell);
  shape.T = T, shape.B = B, shape.I = I, shape.H = H, shape.P = P;
  shape.directions = directions;
  shape.dtype = dtype_named(dtype);
  shape.projection = P != H;
  shape.backward = backward;
  shape.training = training;
  shape.tf32 = tf32;
  shape.clip_norm = clip_norm;
  shape.choice = cuda_choice();
  const CudaPlan plan = plan_cuda(shape, on);
  py::dict result = plan_dict(plan);
  result["card"] = on.card;
  result["processors"] = on.processors;
  result["microseconds"] = plan.microseconds;
  result["fixed_microseconds"] = plan.fixed_microseconds;
  result["other_microseconds"] = plan.other_microseconds;
  result["cost"] = cost_of(plan.cost);
  result["flops"] = plan.flops;
  result["bytes"] = plan.bytes;
  return result;
}

// What the kernels of this build were compiled for, machine code (sm_80) and PTX (compute_80); empty: it has none.
// What that runs on: rnnfast/architectures.py.
std::vector<std::string> architectures() {
  std::vector<std::string> names;
#if defined(RNNFAST_CUDA)
  std::istringstream list(RNNFAST_CUDA_ARCHITECTURES);
  for (std::string name; list >> name;) names.push_back(name);
#endif
  return names;
}

}  // namespace

CudaChoice cuda_choice() {
  const char* const text = std::getenv("RNNFAST_CUDA_PATH");
  const std::string asked = text ? text : "";
  if (asked.empty()) return CudaChoice::kBest;
  if (asked == "step") return CudaChoice::kStep;
  if (asked == "persistent") return CudaChoice::kPersistent;
  throw std::invalid_argument("rnnfast: RNNFAST_CUDA_PATH: expected step, persistent or nothing, got '" + asked +
                              "'");
}

int cuda_processors(int all) {
  const char* const text = std::getenv("RNNFAST_CUDA_PROCESSORS");
  if (!text || !*text) return all;
  char* end = nullptr;
  const long asked = std::strtol(text, &end, 10);
  if (*end || asked < 1)
    throw std::invalid_argument(std::string("rnnfast: RNNFAST_CUDA_PROCESSORS: expected a positive number, got '") +
                                text + "'");
  return asked < all ? int(asked) : all;
}

void define_explain_cuda(py::module_& m) {
  m.def("cuda_architectures", &architectures);
  m.def("cuda_devices", &cuda_device_names);
  m.def("explain_cuda", &explain_cuda, py::arg("device"), py::arg("cell"), py::arg("T"), py::arg("B"), py::arg("I"),
        py::arg("H"), py::arg("P"), py::arg("directions"), py::arg("dtype"), py::arg("backward"),
        py::arg("training"), py::arg("tf32"), py::arg("clip_norm"));
}

}  // namespace rnnfast
