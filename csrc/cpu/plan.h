// SPDX-License-Identifier: Apache-2.0
// The plan: a pure function from (operation, shape, dtype, machine) to decomposition and blocking. It reads nothing
// but its arguments, so every decision can be tested without running a kernel.
#pragma once

#include <cstdint>

namespace rnnfast {

struct Machine {
  int threads = 1;
  int64_t l2_bytes = 512 << 10;  // private to a core
  int vector_bytes = 32;         // of the instruction set in use
};

// How the threads of one direction share a scan.
enum class Split {
  kUnits,  // hidden units: each thread keeps its share of W_hh in its own cache; one barrier a step
  kRows,   // batch rows: every thread reads all of W_hh; no barrier within a step
};

enum class Weights {
  kPacked,  // W_hh and W_ih are copied into panels once a call
  kDirect,  // torch's own row-major weights are read as they are: few rows, bandwidth binds either way
};

// How the projection of the input reads W_ih.
enum class InputWeights {
  kPacked,  // from panels packed once a call
  kPanels,  // from one panel a thread, packed when its turn comes: for sequences that are projected at once
};

struct LayerShape {
  int64_t T = 0, B = 0, I = 0, H = 0, P = 0;
  int gates = 4;
  int directions = 1;
  int element_bytes = 4;
  bool packed_sequence = false;
  bool projection = false;
  bool prepacked = false;  // the weights were packed before
  bool training = false;
};

struct LayerPlan {
  int threads = 1;  // of the whole call
  int groups = 1;   // 2: the directions run side by side, threads / 2 each; else one after another
  Split split = Split::kUnits;
  Weights weights = Weights::kPacked;
  InputWeights input = InputWeights::kPacked;
  int64_t chunk_steps =
      1;  // forward: time steps that are projected together, ahead of their scan;
          // backward: time steps whose delta stands at a time, and whose gradients follow their scan
  int64_t block_k = 256;  // depth of a GEMM block
};

LayerPlan plan_forward(const LayerShape& shape, const Machine& machine);
LayerPlan plan_backward(const LayerShape& shape, const Machine& machine);

const char* to_string(Split split);
const char* to_string(Weights weights);

// [begin, end) of part `index` of `count` near-equal parts of [0, n).
struct Range {
  int64_t begin = 0, end = 0;
  int64_t size() const { return end - begin; }
};
Range split_range(int64_t n, int index, int count);

}  // namespace rnnfast
