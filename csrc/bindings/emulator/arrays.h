// SPDX-License-Identifier: Apache-2.0
// NumPy arrays for the emulated device: checked, and made. 16-bit types come as uint16, whatever their format.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <cstring>
#include <optional>
#include <string>
#include <type_traits>
#include <vector>

#include "cuda/params.h"

namespace RNNFAST_NAMESPACE {

namespace py = pybind11;

using OptionalArray = std::optional<py::array>;
using Extents = std::vector<py::ssize_t>;

inline std::string words(const Extents& shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); ++i) text += (i ? ", " : "") + std::to_string(shape[i]);
  return text + "]";
}

template <class T>
py::dtype array_dtype() {
  if constexpr (sizeof(T) == 2)
    return py::dtype::of<uint16_t>();
  else
    return py::dtype::of<T>();
}

// rows_contiguous: only the last dimension must be.
template <class T>
const T* checked(const char* operation, const char* name, const py::array& a, const Extents& shape,
                 bool rows_contiguous = false) {
  const auto wrong = [&](const std::string& expected, const std::string& got) {
    throw py::value_error(std::string(operation) + ": " + name + ": expected " + expected + ", got " + got);
  };
  if (!a.dtype().equal(array_dtype<T>()))
    wrong(py::str(array_dtype<T>()).cast<std::string>(), py::str(a.dtype()).cast<std::string>());
  const Extents got(a.shape(), a.shape() + a.ndim());
  if (got != shape) wrong("shape " + words(shape), words(got));
  const py::ssize_t last = a.ndim() - 1;
  // Where there is nothing, strides may be anything.
  const bool contiguous = a.size() == 0 || (rows_contiguous ? a.shape(last) <= 1 || a.strides(last) == a.itemsize()
                                                            : (a.flags() & py::array::c_style) != 0);
  if (!contiguous) wrong(rows_contiguous ? "contiguous rows" : "a contiguous array", "another layout");
  return static_cast<const T*>(a.data());
}

template <class T>
const T* checked(const char* operation, const char* name, const OptionalArray& a, const Extents& shape) {
  return a ? checked<T>(operation, name, *a, shape) : nullptr;
}

// Every byte 255: NaN in every format, so that what a kernel forgets to write is seen.
template <class T>
py::array unset(const Extents& shape) {
  py::array a(array_dtype<T>(), shape);
  std::memset(a.mutable_data(), 0xff, static_cast<size_t>(a.nbytes()));
  return a;
}

template <class T>
T* data_of(py::array& a) {
  return a.size() > 0 ? static_cast<T*>(a.mutable_data()) : nullptr;
}

}  // namespace RNNFAST_NAMESPACE
