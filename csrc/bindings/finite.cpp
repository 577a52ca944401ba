// SPDX-License-Identifier: Apache-2.0
#include "bindings/finite.h"

#include <ATen/Functions.h>
#include <c10/util/Exception.h>

#include <cmath>
#include <cstring>
#include <initializer_list>
#include <limits>
#include <string>
#include <type_traits>
#include <vector>

namespace rnnfast {
namespace {

template <class T>
constexpr T kInfinity = std::numeric_limits<T>::infinity();
// The least that rounds to infinity, of what is computed in float32 or float64.
template <class T>
constexpr T infinity_of(LayerOptions::Rounded rounded) {
  return rounded == LayerOptions::kHalf       ? T(0x1.FFEp15)
         : rounded == LayerOptions::kBFloat16 ? T(0x1.FFp127)
                                              : kInfinity<T>;
}

// Whether all are below `infinity` in absolute value. By bits, which compilers turn into vectors, and which put NaN
// above infinity.
template <class T>
bool all_finite(const T* values, int64_t n, T infinity = kInfinity<T>) {
  using Bits = std::conditional_t<sizeof(T) == 4, uint32_t, uint64_t>;
  constexpr Bits kAbsolute = Bits(~Bits(0)) >> 1;
  Bits least;
  std::memcpy(&least, &infinity, sizeof least);
  Bits bad = 0;
  for (int64_t i = 0; i < n; ++i) {
    Bits bits;
    std::memcpy(&bits, values + i, sizeof bits);
    bad |= Bits((bits & kAbsolute) >= least);
  }
  return bad == 0;
}

[[noreturn]] void raise(const LayerCall& call, bool backward, const char* what, int64_t d, int64_t t, int64_t b) {
  const int64_t slice = call.options.slice;
  const std::string of = slice > 0 ? " of slice " + std::to_string(b / slice) + " of vmap" : "";
  TORCH_CHECK(false, op_name(call.kind, backward), ": nan_policy='raise': ", what, " is not finite at layer ",
              call.options.layer, ", direction ", d, ", step ", t, ", sample ", slice > 0 ? b % slice : b, of,
              call.batch_sizes ? " (in the order of the packed batch)" : "");
}

// visit(direction, step, sample, row) in processing order, or the other way round.
template <class F>
void for_rows(const LayerSizes& s, bool backward, F visit) {
  const Sequence seq = s.sequence();
  for (int64_t d = 0; d < s.directions; ++d)
    for (int64_t p = 0; p < s.T; ++p) {
      const int64_t t = Sequence::time_of(p, s.T, (d == 1 || s.reversed) != backward);
      for (int64_t b = 0; b < seq.active(t); ++b) visit(d, t, b, seq.first_row(t) + b);
    }
}

template <class T>
void check(const LayerCall& call, const LayerSizes& s, const at::Tensor& y, const at::Tensor& cells,
           int64_t direction, int64_t begin) {
  const T* const h = y.const_data_ptr<T>();
  const T* const c = cells.numel() > 0 ? cells.const_data_ptr<T>() : nullptr;
  const T infinity = infinity_of<T>(call.options.rounded);
  if (all_finite(h, y.numel(), infinity) && (!c || all_finite(c, cells.numel()))) return;
  for_rows(s, false, [&](int64_t d, int64_t t, int64_t b, int64_t row) {
    if (c && !all_finite(c + (d * s.rows + row) * s.H, s.H))
      raise(call, false, "the state c", direction + d, begin + t, b);
    if (!all_finite(h + (row * s.directions + d) * s.P, s.P, infinity))
      raise(call, false, "the state h", direction + d, begin + t, b);
  });
}

template <class T>
void check(const LayerCall& call, const LayerSizes& s, const at::Tensor& record, int64_t direction, int64_t begin) {
  const T* const r = record.const_data_ptr<T>();
  for_rows(s, true, [&](int64_t d, int64_t t, int64_t b, int64_t row) {
    const T* const norms = r + (d * s.rows + row) * kRecorded;
    if (!std::isfinite(norms[0])) raise(call, true, "the error signal dL/dh", direction + d, begin + t, b);
    if (!std::isfinite(norms[1])) raise(call, true, "the error signal dL/dc", direction + d, begin + t, b);
  });
}

// Of tensors on another device, where the least and the largest value are looked for: NaN is both. One transfer.
bool all_finite_there(std::initializer_list<at::Tensor> tensors) {
  std::vector<at::Tensor> ends;
  for (const at::Tensor& t : tensors) {
    if (t.numel() == 0) continue;
    const auto [least, largest] = at::aminmax(t);
    ends.push_back(least.to(at::kDouble)), ends.push_back(largest.to(at::kDouble));
  }
  if (ends.empty()) return true;
  const at::Tensor here = at::stack(ends).cpu();
  return all_finite(here.const_data_ptr<double>(), here.numel());
}

// What remains of the check where that has found something, or of tensors that are here already.
at::Tensor on_cpu(const at::Tensor& t) { return t.to(at::kCPU, computed(t.scalar_type())).contiguous(); }

}  // namespace

void check_states(const LayerCall& call, const LayerSizes& s, const at::Tensor& y, const at::Tensor& cells,
                  int64_t direction, int64_t begin) {
  if (!y.is_cpu() && all_finite_there({y, cells})) return;
  const at::Tensor states = on_cpu(y), kept = on_cpu(cells);
  if (states.scalar_type() == at::kFloat) {
    check<float>(call, s, states, kept, direction, begin);
  } else {
    check<double>(call, s, states, kept, direction, begin);
  }
}

void check_final(const LayerCall& call, const LayerSizes& s, const at::Tensor& c_n) {
  const bool rounded = is_reduced(c_n.scalar_type());
  if (c_n.numel() == 0 || (!rounded && call.options.rounded == LayerOptions::kNot)) return;
  if (!c_n.is_cpu() && all_finite_there({c_n})) return;
  const at::Tensor states = on_cpu(c_n);  // in float32
  const float* const c = states.const_data_ptr<float>();
  const float infinity = rounded ? kInfinity<float> : infinity_of<float>(call.options.rounded);
  for (int64_t d = 0; d < s.directions; ++d)
    for (int64_t b = 0; b < s.B; ++b)
      if (!all_finite(c + (d * s.B + b) * s.H, s.H, infinity))
        raise(call, false, "the final state c", d, d == 1 ? 0 : s.sequence().last_step(b), b);
}

void check_signals(const LayerCall& call, const LayerSizes& s, const at::Tensor& record, int64_t direction,
                   int64_t begin) {
  if (record.scalar_type() == at::kFloat) {
    check<float>(call, s, record, direction, begin);
  } else {
    check<double>(call, s, record, direction, begin);
  }
}

}  // namespace rnnfast
