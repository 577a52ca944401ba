// SPDX-License-Identifier: Apache-2.0
#include "cpu/job.h"

#include <algorithm>

namespace rnnfast {
namespace {

// Hands out consecutive pieces of a workspace, each on a cache line of its own.
class Layout {
 public:
  int64_t take(int64_t elements) {
    const int64_t offset = size_;
    size_ += rounded(elements);
    return offset;
  }
  int64_t size() const { return size_; }
  static int64_t rounded(int64_t elements) { return (elements + 15) / 16 * 16; }

 private:
  int64_t size_ = 0;
};

int64_t padded(int64_t n, int lanes) { return (n + lanes - 1) / lanes * lanes; }

}  // namespace

PackedSpace packed_space(const CellInfo& cell, const LayerShape& s, int lanes, bool with_ih) {
  PackedSpace space;
  Layout layout;
  const int64_t columns = cell.gates * padded(s.H, lanes);
  space.hh = layout.take(columns * s.P);
  space.ih = layout.take(with_ih ? columns * s.I : 0);
  space.bias = layout.take(2 * columns);
  if (s.projection) space.hr = layout.take(padded(s.P, lanes) * s.H);
  space.size = layout.size();
  return space;
}

ForwardSpace forward_space(const CellInfo& cell, const LayerShape& s, const LayerPlan& plan, int lanes,
                           bool training) {
  ForwardSpace space;
  Layout layout;
  if (plan.weights == Weights::kPacked) {
    space.packed = packed_space(cell, s, lanes, s.prepacked || plan.input == InputWeights::kPacked);
    if (!s.prepacked) layout.take(space.packed.size);
    if (plan.input == InputWeights::kPanels) {
      const int vectors = cell.gates == 1 ? 4 : 1;  // of units in a tile
      space.panel_size = Layout::rounded(s.I * cell.gates * vectors * lanes);
      space.panel = layout.take(plan.threads * space.panel_size);
    }
    // Elsewhere the projection is written where its result will stand: among the saved values, or in y.
    const bool in_place = (training && cell.saved >= cell.gates) || (cell.gates == 1 && !s.projection);
    if (!in_place) space.gates_x = layout.take(plan.chunk_steps * s.B * cell.gates * s.H);
  }
  space.zeros = layout.take(std::max(s.H, s.P));
  if (s.projection) space.cell_output = layout.take(s.B * s.H);
  space.size = layout.size();
  return space;
}

BackwardSpace backward_space(const CellInfo& cell, const LayerShape& s, const LayerPlan& plan, int lanes,
                             int64_t rows, bool wants_grad_x, const Bptt& bptt, bool record) {
  BackwardSpace space;
  const bool norms = bptt.clip == Bptt::kNorm || record;
  Layout direction;
  const int64_t chunk_rows = std::min(rows, plan.chunk_steps * s.B);
  space.delta = direction.take(chunk_rows * cell.delta * s.H);
  if (plan.chunk_steps < s.T) space.edge = direction.take(s.B * cell.gates * s.H);
  space.packed_hh = direction.take(cell.gates * s.H * padded(s.P, lanes));
  if (s.projection) {
    space.grad_h = direction.take(chunk_rows * s.P);
    space.cell_output = direction.take(chunk_rows * s.H);
    space.packed_hr = direction.take(s.P * padded(s.H, lanes));
    if (norms) space.grad_output = direction.take(s.B * s.H);
  } else if (bptt.active() || record) {
    space.grad_h = direction.take(s.B * s.P);
  }
  if (norms) space.partials = direction.take(int64_t(4) * plan.threads * s.B);
  space.carry = direction.take(s.B * s.H);
  space.direction_size = direction.size();

  Layout layout;
  layout.take(s.directions * space.direction_size);
  space.zeros = layout.take(std::max(s.H, s.P));
  if (plan.groups == 2 && wants_grad_x) space.grad_x = layout.take(rows * s.I);
  // Thread buffers: a block of delta^T, and one panel of x, h or the cell's output. Some slack for
  // the rounding of the shares.
  const int threads = plan.threads / plan.groups;
  const int64_t columns = std::max(cell.gates * s.H, s.projection ? s.P : 0) / threads + 16;
  space.thread_a = Layout::rounded(std::min(plan.block_k, chunk_rows) * columns + 64);
  space.thread_b = plan.block_k * 4 * lanes;
  space.threads = layout.take(plan.threads * (space.thread_a + space.thread_b));
  space.size = layout.size();
  return space;
}

}  // namespace rnnfast
