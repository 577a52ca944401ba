// SPDX-License-Identifier: Apache-2.0
// The engine of rnnfast.Stream: a frozen stack with the state inside, one step or one chunk at a time.
#pragma once

#include <torch/csrc/utils/pybind.h>

#include <memory>

#include "bindings/frozen.h"

namespace rnnfast {

// One thread at a time; several of one FrozenStack may run in several threads.
class StreamEngine {
 public:
  StreamEngine(std::shared_ptr<const FrozenStack> stack, int64_t batch);

  // x [B, I] or [T, B, I]; out: where the result goes ([B, P], [T, B, P]), or null. With the GIL held, which it
  // releases for what takes long.
  at::Tensor run(const at::Tensor& x, const at::Tensor* out);

  // Other weights of the same sizes.
  void set_stack(std::shared_ptr<const FrozenStack> stack);

  // The memory of the state, [L, B, P] and [L, B, H] (undefined without c), in the packed weights' dtype.
  const at::Tensor& hidden() const { return h_; }
  const at::Tensor& cell() const { return c_; }
  int64_t bytes() const { return stack_->bytes(); }

 private:
  template <class T>
  void prepare();
  template <class T>
  void advance(const T* x, int64_t T_steps, int64_t x_step, int64_t x_row, T* y);
  template <class T>
  void plan_steps(int threads);
  void advance_reduced(const at::Tensor& x, int64_t steps, at::Tensor& out);
  [[noreturn]] void refuse_input(const at::Tensor& x) const;
  void check_out(const at::Tensor& out, const at::Tensor& x, int64_t steps) const;

  // A call of one step, planned once.
  template <class T>
  struct Steps {
    std::vector<StackLayer<T>> layers;
    StackCall<T> call;
  };
  template <class T>
  Steps<T>& steps() {
    if constexpr (std::is_same_v<T, float>)
      return float_;
    else
      return double_;
  }

  std::shared_ptr<const FrozenStack> stack_;
  at::Tensor h_, c_;
  int64_t B_, I_, P_, step_work_ = 0;  // multiply-adds of a step
  Steps<float> float_;
  Steps<double> double_;
  LayerShape shape_;  // of a step
  StackPlan plan_;
  StackSpace space_;
  int planned_threads_ = 0;
  at::Tensor memory_;
  bool busy_ = false;  // guarded by the GIL
};

// Adds the class to the module. Its objects are called without pybind11's argument conversion.
void define_stream(pybind11::module_& m);

}  // namespace rnnfast
