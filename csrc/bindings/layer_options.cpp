// SPDX-License-Identifier: Apache-2.0
#include "bindings/layer_options.h"

#include <c10/util/Exception.h>

namespace rnnfast {
namespace {

enum Code { kClip, kSteps, kCheckpoint, kCheck, kLayer, kRecorder, kCodes };

}  // namespace

LayerOptions LayerOptions::read(CellKind kind, double limit, c10::IntArrayRef codes) {
  LayerOptions o;
  if (codes.empty()) return o;
  const std::string op = std::string("rnnfast::") + cell_info(kind).name + "_layer";
  TORCH_CHECK(codes.size() == kCodes, op, ": bptt: expected [] or ", int(kCodes),
              " entries (clip, steps, checkpoint, check, layer, recorder), got ", codes.size());
  TORCH_CHECK(codes[kClip] >= Bptt::kNone && codes[kClip] <= Bptt::kNorm, op,
              ": bptt: clip: expected 0 (none), 1 (value) or 2 (norm), got ", codes[kClip]);
  o.bptt.clip = Bptt::Clip(codes[kClip]);
  TORCH_CHECK(o.bptt.clip == Bptt::kNone || limit > 0, op, ": limit: expected a positive number, got ", limit);
  o.bptt.limit = o.bptt.clip == Bptt::kNone ? 0 : limit;
  for (const Code code : {kSteps, kCheckpoint, kLayer, kRecorder})
    TORCH_CHECK(codes[code] >= 0, op, ": bptt: expected no negative entry, got ", codes);
  o.bptt.steps = codes[kSteps];
  o.checkpoint = codes[kCheckpoint];
  o.check = codes[kCheck] != 0;
  o.layer = codes[kLayer];
  o.recorder = codes[kRecorder];
  return o;
}

std::vector<int64_t> LayerOptions::codes() const {
  if (!bptt.active() && checkpoint == 0 && !check && recorder == 0) return {};
  return {bptt.clip, bptt.steps, checkpoint, check, layer, recorder};
}

void check_no_control(const std::string& op, const LayerOptions& options, const char* what) {
  TORCH_CHECK_NOT_IMPLEMENTED(
      !options.bptt.active(), op, ": ", what,
      " with bptt_clip or bptt_steps: expected neither of the two, since what limits or cuts "
      "the error signal makes of the gradient something that has no such derivative");
}

}  // namespace rnnfast
