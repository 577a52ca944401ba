// SPDX-License-Identifier: Apache-2.0
// The table of kernels that each instruction-set target exports, and the choice of one.
#pragma once

#include <string>
#include <vector>

#include "cpu/job.h"

namespace rnnfast {

enum class Activation { kExp, kTanh, kSigmoid };

// One cell's kernels for one element type. `index` and `count`: which thread of how many.
template <class T>
struct CellKernels {
  void (*pack)(const PackJob<T>&, int index, int count);
  void (*forward)(const ForwardJob<T>&, int index, int count);
  void (*backward)(const BackwardJob<T>&, int index, int count);
  void (*step)(const ForwardJob<T>&, int index, int count);  // one step on packed weights: cpu/step.h
};

struct Kernels {
  const char* name;
  int vector_bytes;
  CellKernels<float> f32[kCellCount];
  CellKernels<double> f64[kCellCount];
  void (*activation_f32)(Activation, const float* in, float* out, int64_t n);
  void (*activation_f64)(Activation, const double* in, double* out, int64_t n);
  double (*fma_flops)(int64_t rounds);  // runs `rounds` rounds of independent FMAs; returns the flops done
  float (*read_memory)(const float* from, int64_t n);  // reads n floats once; returns their sum

  const CellKernels<float>& of(CellKind kind, float) const { return f32[static_cast<int>(kind)]; }
  const CellKernels<double>& of(CellKind kind, double) const { return f64[static_cast<int>(kind)]; }
};

// Every target compiled in, best first; and those that this processor can run.
const std::vector<const Kernels*>& kernels_built();
const std::vector<const Kernels*>& kernels_available();

// The target in use: the best available, or what RNNFAST_ISA or use_isa named.
const Kernels& kernels();

// Chooses a target by name; "" chooses the best again. Throws std::invalid_argument that names what is available.
void use_isa(const std::string& name);

}  // namespace rnnfast
