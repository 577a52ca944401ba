// SPDX-License-Identifier: Apache-2.0
// The value type of cell mathematics on tensors: every operation is one of torch's, with its derivatives. See
// core/scalar.h for what a value type must offer; of that, what the forward mathematics of the cells needs. The
// activations are torch's.
#pragma once

#include <ATen/Functions.h>

#include <utility>

namespace rnnfast_tensor {

class TensorValue {
 public:
  TensorValue() = default;
  TensorValue(at::Tensor t) : tensor_(std::move(t)) {}

  static TensorValue constant(double x) {
    TensorValue v;
    v.scalar_ = x;
    return v;
  }

  const at::Tensor& tensor() const { return tensor_; }
  bool is_constant() const { return !tensor_.defined(); }
  at::Scalar scalar() const { return scalar_; }

  friend TensorValue operator+(const TensorValue& a, const TensorValue& b) {
    if (a.is_constant()) return at::add(b.tensor_, a.scalar());
    return b.is_constant() ? at::add(a.tensor_, b.scalar()) : at::add(a.tensor_, b.tensor_);
  }
  friend TensorValue operator-(const TensorValue& a, const TensorValue& b) {
    if (a.is_constant()) return at::rsub(b.tensor_, a.scalar());
    return b.is_constant() ? at::sub(a.tensor_, b.scalar()) : at::sub(a.tensor_, b.tensor_);
  }
  friend TensorValue operator*(const TensorValue& a, const TensorValue& b) {
    if (a.is_constant()) return at::mul(b.tensor_, a.scalar());
    return b.is_constant() ? at::mul(a.tensor_, b.scalar()) : at::mul(a.tensor_, b.tensor_);
  }
  // Of a tensor and a constant, in either order.
  friend at::Tensor less(const TensorValue& a, const TensorValue& b) {
    if (a.is_constant()) return at::gt(b.tensor_, a.scalar());
    return b.is_constant() ? at::lt(a.tensor_, b.scalar()) : at::lt(a.tensor_, b.tensor_);
  }
  friend TensorValue select(const at::Tensor& c, const TensorValue& a, const TensorValue& b) {
    if (a.is_constant())
      return b.is_constant() ? at::where(c, a.scalar(), b.scalar()) : at::where(c, a.scalar(), b.tensor_);
    return b.is_constant() ? at::where(c, a.tensor_, b.scalar()) : at::where(c, a.tensor_, b.tensor_);
  }
  friend TensorValue sigmoid(const TensorValue& a) { return at::sigmoid(a.tensor_); }
  friend TensorValue relu(const TensorValue& a) { return at::relu(a.tensor_); }
  friend TensorValue tanh(const TensorValue& a) { return at::tanh(a.tensor_); }

 private:
  at::Tensor tensor_;
  double scalar_ = 0;
};

template <class V>
struct ValueTraits;

template <>
struct ValueTraits<TensorValue> {
  using Scalar = double;
  static TensorValue constant(double x) { return TensorValue::constant(x); }
};

}  // namespace rnnfast_tensor
