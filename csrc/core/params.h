// SPDX-License-Identifier: Apache-2.0
// What a layer's kernels are told: pointers, sizes, strides in elements. Plain data, no torch.
#pragma once

#include <cstdint>

namespace rnnfast {

// Which rows of the batch are active at each time step: all B of them (dense), or torch's packed layout, where step
// t has the first batch_sizes[t] samples and its rows begin at offsets[t].
struct Sequence {
  int64_t T = 0;                         // time steps
  int64_t B = 0;                         // batch
  const int64_t* batch_sizes = nullptr;  // [T], non-increasing; null: dense
  const int64_t* offsets = nullptr;      // [T + 1]; null: dense
  const int64_t* lengths = nullptr;      // [B], each sample's steps (truncated BPTT reads them); null: dense

  int64_t active(int64_t t) const { return batch_sizes ? batch_sizes[t] : B; }
  int64_t first_row(int64_t t) const { return offsets ? offsets[t] : t * B; }
  int64_t rows() const { return first_row(T); }

  // The last time step at which sample b is active.
  int64_t last_step(int64_t b) const {
    int64_t t = T - 1;
    while (active(t) <= b) --t;
    return t;
  }

  // Processing order: the p-th step that a scan visits is time step t.
  static int64_t time_of(int64_t p, int64_t T, bool reverse) { return reverse ? T - 1 - p : p; }

  // How many samples had a step before (after) t in processing order. Always a prefix of the batch.
  int64_t active_before(int64_t t, bool reverse) const {
    const int64_t before = reverse ? t + 1 : t - 1;
    return before < 0 || before >= T ? 0 : (active(before) < active(t) ? active(before) : active(t));
  }
  int64_t active_after(int64_t t, bool reverse) const { return active_before(t, !reverse); }
};

// One direction's parameters, contiguous. G: the cell's gates; P: features of h (H, or those of the projection).
template <class T>
struct LayerWeights {
  const T* w_ih = nullptr;  // [G*H, I]
  const T* w_hh = nullptr;  // [G*H, P]
  const T* b_ih = nullptr;  // [G*H] or null
  const T* b_hh = nullptr;  // [G*H] or null
  const T* w_hr = nullptr;  // [P, H], the projection, or null
};

// Every matrix has contiguous rows. Null optional inputs mean zeros.
template <class T>
struct LayerInputs {
  Sequence sequence;
  int64_t I = 0, H = 0, P = 0;
  int directions = 1;  // direction 1 runs from the last step to the first
  int variant = 0;     // of the cell
  bool projection = false;
  bool reversed = false;  // the one direction there is runs from the last step to the first
  const T* x = nullptr;   // row (t, b) at x + t * x_step + b * x_row; packed: row r at x + r * x_row
  int64_t x_step = 0, x_row = 0;
  const T* h0 = nullptr;  // [D, B, P] or null
  const T* c0 = nullptr;  // [D, B, H] or null
  LayerWeights<T> weights[2];

  bool runs_back(int direction) const { return direction == 1 || reversed; }

  const T* x_at(int64_t t, int64_t b) const {
    return x + (sequence.offsets ? sequence.offsets[t] * x_row : t * x_step) + b * x_row;
  }
};

template <class T>
struct LayerForward {
  LayerInputs<T> in;
  const T* packed =
      nullptr;            // weights packed before (PackedSpace, for each direction), or null: packed by the call
  T* y = nullptr;         // [N, D*P]
  T* h_n = nullptr;       // [D, B, P]
  T* c_n = nullptr;       // [D, B, H]; also the running cell state of the scan. Cells without c: null
  T* saved = nullptr;     // [D, N, S*H] for the backward pass, or null in inference
  T* cells = nullptr;     // [D, N, H] likewise, where the cell has c
  bool training = false;  // saved and cells, as far as the cell has any, are written
};

// The user's control over backpropagation through time. The error signal of step t is the total dL/dh_t, and of
// cells with c the total dL/dc_t; each is limited before it is used. Exactly: docs/training.md.
struct Bptt {
  enum Clip { kNone, kValue, kNorm };
  Clip clip = kNone;
  double limit = 0;   // of each element's absolute value, or of a sample's norm over its units
  int64_t steps = 0;  // nothing comes back from step t to t - 1 where (T_b - t) mod steps = 0; 0: no such cut

  int64_t behind = 0;  // steps that follow outside of this sequence, a segment of a longer one (not with lengths)

  bool active() const { return clip != kNone || steps > 0; }
};

// What the backward pass can record of each row: the norms of dL/dh and dL/dc before the limit, and what was
// limited (by value: elements of both; by norm: 0, 1 or 2).
constexpr int kRecorded = 3;

template <class T>
struct LayerBackward {
  LayerInputs<T> in;
  Bptt bptt;
  T* record = nullptr;   // [D, N, kRecorded], or null
  const T* y = nullptr;  // what the forward pass returned
  const T* saved = nullptr;
  const T* cells = nullptr;
  const T* grad_y = nullptr;    // [N, D*P] or null
  const T* grad_h_n = nullptr;  // [D, B, P] or null
  const T* grad_c_n = nullptr;  // [D, B, H] or null
  T* grad_x = nullptr;          // [N, I] contiguous; null (here and below): not asked for
  T* grad_h0 = nullptr;         // [D, B, P]
  T* grad_c0 = nullptr;         // [D, B, H]
  T* grad_w_ih[2] = {nullptr, nullptr};
  T* grad_w_hh[2] = {nullptr, nullptr};
  T* grad_b_ih[2] = {nullptr, nullptr};
  T* grad_b_hh[2] = {nullptr, nullptr};
  T* grad_w_hr[2] = {nullptr, nullptr};
};

}  // namespace rnnfast
