// SPDX-License-Identifier: Apache-2.0
// The projection of the input: gates_x = x W_ih^T + b, for the rows of a chunk of steps.
#pragma once

#include "cells/all.h"
#include "cpu/tile.h"

namespace RNNFAST_NAMESPACE {

template <class Cell, class T>
class ForwardScan;

// Rows x U vectors of units of a scan's share, all gates: part k .. k + depth of the product, added to the parts
// before it.
template <class Cell, class T, int U>
struct ProjectBlock {
  using V = TargetVec<T>;
  static constexpr int N = V::kLanes, G = Cell::kGates;

  ForwardScan<Cell, T>& s;
  int64_t vector;
  const T* weights;  // its panel of W_ih
  T* out;            // gates_x of global row 0
  int64_t k, depth;

  template <int R>
  RNNFAST_INLINE void rows(int64_t first) {
    RowPointers<T, R> x;
    Tile<T, R, U * G> tile;
    const int64_t unit = vector * N;
    const int last = s.valid_lanes(unit + (U - 1) * N);
    T* to = out + first * s.gates_x_stride_ + unit;
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      x.row[r] = s.x_row(first + r) + k;
#pragma GCC unroll 4
      for (int u = 0; u < U; ++u)
#pragma GCC unroll 4
        for (int g = 0; g < G; ++g)
          tile.acc[r][u * G + g] =
              k == 0 ? load<V>(s.bias(vector + u) + g * N)
                     : load_first<V>(to + r * s.gates_x_stride_ + g * s.H_ + u * N, u == U - 1 ? last : N);
    }
    s.template multiply_units<U>(tile, x, weights + k * G * N, s.I_, depth);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
      for (int u = 0; u < U; ++u)
#pragma GCC unroll 4
        for (int g = 0; g < G; ++g)
          store_first(to + r * s.gates_x_stride_ + g * s.H_ + u * N, tile.acc[r][u * G + g], u == U - 1 ? last : N);
  }
};

}  // namespace RNNFAST_NAMESPACE
