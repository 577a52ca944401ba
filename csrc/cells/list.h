// SPDX-License-Identifier: Apache-2.0
// The list of cells: one line each. Kernels, ops, autograd and the answers to Python are generated from it.
#pragma once

#include <cstdint>

// X(name of the op, class in cells/*.h, its variant)
#define RNNFAST_CELLS(X)    \
  X(lstm, LstmCell, 0)      \
  X(gru, GruCell, 0)        \
  X(rnn_tanh, ElmanCell, 0) \
  X(rnn_relu, ElmanCell, 1) \
  X(rnn_sigmoid, ElmanCell, 2)

namespace rnnfast {

enum class CellKind {
#define RNNFAST_ENUMERATOR(name, Cell, variant) name,
  RNNFAST_CELLS(RNNFAST_ENUMERATOR)
#undef RNNFAST_ENUMERATOR
};

// A cell's constants, for code that does not know its class. Meaning: docs/architecture.md, "A cell".
struct CellInfo {
  const char* name;
  int variant;
  int gates;      // G
  int saved;      // S: values a unit kept for the backward pass, besides c
  int delta;      // blocks of H columns in delta
  bool has_cell;  // carries c besides h
};

#define RNNFAST_COUNT(name, Cell, variant) +1
constexpr int kCellCount = 0 RNNFAST_CELLS(RNNFAST_COUNT);
#undef RNNFAST_COUNT

const CellInfo& cell_info(CellKind kind);

}  // namespace rnnfast
