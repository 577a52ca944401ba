// SPDX-License-Identifier: Apache-2.0
#include "cpu/step_kernels.h"

#include <cstring>
#include <stdexcept>

namespace rnnfast {

extern const StepKernels k_generic_step;
#if defined(__x86_64__)
extern const StepKernels k_avx2_step;
#if !defined(RNNFAST_NO_AVX512)
extern const StepKernels k_avx512_step;
#endif
#endif

const StepKernels& step_kernels(const Kernels& target) {
  for (const StepKernels* k : {
#if defined(__x86_64__)
#if !defined(RNNFAST_NO_AVX512)
           &k_avx512_step,
#endif
           &k_avx2_step,
#endif
           &k_generic_step})
    if (std::strcmp(k->name, target.name) == 0) return *k;
  throw std::logic_error(std::string("rnnfast: no step kernels for instruction set ") + target.name);
}

}  // namespace rnnfast
