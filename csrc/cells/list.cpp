// SPDX-License-Identifier: Apache-2.0
#include "cells/list.h"

#define RNNFAST_NAMESPACE rnnfast_scalar
#include "cells/all.h"

namespace rnnfast {
namespace {

template <class Cell>
constexpr CellInfo info(const char* name, int variant) {
  static_assert(Cell::kDeltaRecurrent + Cell::kGates <= Cell::kDelta, "delta has no room for the recurrent share");
  static_assert(Cell::kFirstGate < Cell::kGates, "no such gate");
  static_assert(!(Cell::kHasCell && Cell::kDirect), "the scans carry one of dc and dh");
  return {name, variant, Cell::kGates, Cell::kSaved, Cell::kDelta, Cell::kHasCell};
}

}  // namespace

const CellInfo& cell_info(CellKind kind) {
  static constexpr CellInfo all[] = {
#define RNNFAST_INFO(name, Cell, variant) info<rnnfast_scalar::Cell>(#name, variant),
      RNNFAST_CELLS(RNNFAST_INFO)
#undef RNNFAST_INFO
  };
  return all[static_cast<int>(kind)];
}

}  // namespace rnnfast
