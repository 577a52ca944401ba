// SPDX-License-Identifier: Apache-2.0
#include "cpu/lstm_job.h"

#include <algorithm>

namespace rnnfast {
namespace {

// Hands out consecutive pieces of a workspace, each on a cache line of its own.
class Layout {
 public:
  int64_t take(int64_t elements) {
    const int64_t offset = size_;
    size_ += (elements + 15) / 16 * 16;
    return offset;
  }
  int64_t size() const { return size_; }

 private:
  int64_t size_ = 0;
};

int64_t padded(int64_t n, int lanes) { return (n + lanes - 1) / lanes * lanes; }

}  // namespace

LstmForwardSpace forward_space(const LayerShape& s, const LayerPlan& plan, int lanes, bool training) {
  LstmForwardSpace space;
  Layout layout;
  const int64_t padded_h = padded(s.H, lanes);
  if (plan.weights == Weights::kPacked) {
    space.packed_hh = layout.take(4 * padded_h * s.H);
    space.packed_ih = layout.take(4 * padded_h * s.I);
    space.bias = layout.take(4 * padded_h);
    if (!training) space.gates_x = layout.take(plan.chunk_steps * s.B * 4 * s.H);
  }
  space.zeros = layout.take(s.H);
  space.size = layout.size();
  return space;
}

LstmBackwardSpace backward_space(const LayerShape& s, const LayerPlan& plan, int lanes, int64_t rows) {
  LstmBackwardSpace space;
  Layout direction;
  space.delta = direction.take(rows * 4 * s.H);
  space.packed_hh = direction.take(4 * s.H * padded(s.H, lanes));
  space.packed_ih = direction.take(4 * s.H * padded(s.I, lanes));
  space.dc = direction.take(s.B * s.H);
  space.direction_size = direction.size();
  Layout layout;
  layout.take(s.directions * space.direction_size);
  space.zeros = layout.take(s.H);
  // Thread buffers: a block of delta^T, and one panel of x or h. One row of slack, as blocks are copied by vectors.
  const int64_t rows_of_thread = split_range(4 * s.H, 0, 1).size() / plan.threads + 16;
  space.thread_a = (plan.block_k * rows_of_thread + 64 + 15) / 16 * 16;
  space.thread_b = plan.block_k * 4 * lanes;
  space.threads = layout.take(plan.threads * (space.thread_a + space.thread_b));
  space.size = layout.size();
  return space;
}

}  // namespace rnnfast
