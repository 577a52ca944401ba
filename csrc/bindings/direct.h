// SPDX-License-Identifier: Apache-2.0
// Modules and cells without grad: from Python straight to the kernels, all layers in one call. At small sizes the
// way through modules, checks and dispatcher takes several times longer than the work.
#pragma once

#include <torch/csrc/utils/pybind.h>

namespace rnnfast {

// Adds direct_layers and direct_cell. Both return None where anything is not plain (grad, autocast, modes,
// transforms, subclasses, other dtypes, wrong sizes, packed sequences, dropout, ...): then the caller goes the
// usual way, which knows all of that and raises torch.nn's errors.
void define_direct(pybind11::module_& m);

}  // namespace rnnfast
