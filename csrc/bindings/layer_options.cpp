// SPDX-License-Identifier: Apache-2.0
#include "bindings/layer_options.h"

#include <c10/util/Exception.h>

#include <cmath>
#include <limits>

namespace rnnfast {
namespace {

enum Code { kClip, kSteps, kCheckpoint, kCheck, kLayer, kRecorder, kCodes, kSlice = kCodes };

constexpr int64_t kMostSteps = int64_t(1) << 62;  // more than any T; the sum of two is an int64 still

// What kernels compute in for tensors of a dtype has to hold the limit: rounded to zero it would stop every signal.
template <class T>
void check_limit(const std::string& op, double limit) {
  constexpr double kLeast = std::numeric_limits<T>::min(), kMost = std::numeric_limits<T>::max();
  TORCH_CHECK(limit >= kLeast && limit <= kMost, op, ": limit: expected a positive number from ", kLeast, " to ",
              kMost, ", which ", sizeof(T) == 4 ? "float32" : "float64", " can hold, got ", limit);
}

}  // namespace

LayerOptions LayerOptions::read(CellKind kind, double limit, c10::IntArrayRef codes, c10::ScalarType dtype) {
  LayerOptions o;
  if (codes.empty()) return o;
  const std::string op = std::string("rnnfast::") + cell_info(kind).name + "_layer";
  TORCH_CHECK(codes.size() == kCodes || codes.size() == kSlice + 1, op, ": bptt: expected [] or ", int(kCodes),
              " entries (clip, steps, checkpoint, check, layer, recorder), and one more under vmap, got ",
              codes.size());
  TORCH_CHECK(codes[kClip] >= Bptt::kNone && codes[kClip] <= Bptt::kNorm, op,
              ": bptt: clip: expected 0 (none), 1 (value) or 2 (norm), got ", codes[kClip]);
  o.bptt.clip = Bptt::Clip(codes[kClip]);
  if (o.bptt.clip != Bptt::kNone) {
    if (dtype == c10::kDouble) {
      check_limit<double>(op, limit);
    } else {
      check_limit<float>(op, limit);
    }
  }
  o.bptt.limit = o.bptt.clip == Bptt::kNone ? 0 : limit;
  for (const Code code : {kSteps, kCheckpoint, kCheck, kLayer, kRecorder})
    TORCH_CHECK(codes[code] >= (code == kCheckpoint ? -1 : 0), op,
                ": bptt: expected no negative entry but -1 for checkpoint, got ", codes);
  for (const Code code : {kSteps, kCheckpoint})
    TORCH_CHECK(codes[code] <= kMostSteps, op, ": bptt: steps and checkpoint: expected at most 2^62, got ", codes);
  o.bptt.steps = codes[kSteps];
  o.checkpoint = codes[kCheckpoint];
  o.check = codes[kCheck] != 0;
  TORCH_CHECK(codes[kCheck] <= 1 + kBFloat16, op, ": bptt: check: expected 0 to ", 1 + kBFloat16, ", got ", codes);
  if (o.check) o.rounded = Rounded(codes[kCheck] - 1);
  o.layer = codes[kLayer];
  o.recorder = codes[kRecorder];
  if (codes.size() > kSlice) o.slice = codes[kSlice];
  TORCH_CHECK(o.slice >= 0, op, ": bptt: expected no negative entry, got ", codes);
  return o;
}

std::vector<int64_t> LayerOptions::codes() const {
  if (!bptt.active() && checkpoint == 0 && !check && recorder == 0) return {};
  std::vector<int64_t> all{bptt.clip, bptt.steps, checkpoint, check ? 1 + rounded : 0, layer, recorder};
  if (slice > 0) all.push_back(slice);
  return all;
}

int64_t LayerOptions::segment_steps(int64_t T) const {
  if (checkpoint > 0) return checkpoint;
  return int64_t(std::ceil(std::sqrt(double(T))));  // exact up to 2^50 steps, more than any memory holds
}

void check_no_control(const std::string& op, const LayerOptions& options, const char* what) {
  TORCH_CHECK_NOT_IMPLEMENTED(
      !options.bptt.active(), op, ": ", what,
      " with bptt_clip or bptt_steps: expected neither of the two, since what limits or cuts "
      "the error signal makes of the gradient something that has no such derivative");
}

void check_no_options_in_forward_mode(const std::string& op, const LayerOptions& options) {
  check_no_control(op, options, "forward-mode differentiation");
  const auto check = [&](bool unused, const char* what) {
    TORCH_CHECK_NOT_IMPLEMENTED(unused, op, ": forward-mode differentiation with ", what);
  };
  check(options.checkpoint == 0, "checkpoint_every: expected None, since it keeps every step");
  check(!options.check, "nan_policy='raise': expected 'propagate', since it checks no values");
}

}  // namespace rnnfast
