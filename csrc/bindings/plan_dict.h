// SPDX-License-Identifier: Apache-2.0
// A plan for a GPU as Python sees it; used with torch and, by the emulator's module, without.
#pragma once

#include <pybind11/stl.h>

#include "cuda/plan.h"

namespace rnnfast {

inline pybind11::dict plan_dict(const CudaPlan& plan) {
  pybind11::dict d;
  d["path"] = to_string(plan.path);
  d["product"] = to_string(plan.product);
  d["units"] = plan.units;
  d["blocks"] = plan.blocks;
  d["directions"] = plan.directions;
  d["threads"] = plan.threads;
  d["columns"] = plan.columns;
  d["shared_bytes"] = plan.shared_bytes;
  d["weight_registers"] = plan.weight_registers;
  d["reasons"] = plan.reasons;
  return d;
}

}  // namespace rnnfast
