// SPDX-License-Identifier: Apache-2.0
// The table of kernels that each instruction-set target exports, and the choice of one.
#pragma once

#include <string>
#include <vector>

#include "cpu/lstm_job.h"

namespace rnnfast {

enum class Activation { kExp, kTanh, kSigmoid };

struct Kernels {
  const char* name;
  int vector_bytes;
  void (*lstm_forward_f32)(const LstmForwardJob<float>&, int index, int count);
  void (*lstm_forward_f64)(const LstmForwardJob<double>&, int index, int count);
  void (*lstm_backward_f32)(const LstmBackwardJob<float>&, int index, int count);
  void (*lstm_backward_f64)(const LstmBackwardJob<double>&, int index, int count);
  void (*activation_f32)(Activation, const float* in, float* out, int64_t n);
  void (*activation_f64)(Activation, const double* in, double* out, int64_t n);
  double (*fma_flops)(int64_t rounds);  // runs `rounds` rounds of independent FMAs; returns the flops done
};

// Every target compiled in, best first; and those that this processor can run.
const std::vector<const Kernels*>& kernels_built();
const std::vector<const Kernels*>& kernels_available();

// The target in use: the best available, or what RNNFAST_ISA or use_isa named.
const Kernels& kernels();

// Chooses a target by name; "" chooses the best again. Throws std::invalid_argument that names what is available.
void use_isa(const std::string& name);

}  // namespace rnnfast
