// SPDX-License-Identifier: Apache-2.0
#include "cuda/layer_parts.h"

#include "cuda/rows.h"
#include "cuda/unit.h"

namespace RNNFAST_NAMESPACE {
namespace {

// Of T, B, I, H and the columns of delta: leaves room for the last block and stride of a grid.
constexpr int64_t kMostOfASize = int64_t{1} << 30;

template <class Cell, class S>
CudaCell<S> describe() {
  CudaCell<S> c{};
  c.gates = Cell::kGates, c.saved = Cell::kSaved, c.delta = Cell::kDelta;
  c.delta_recurrent = Cell::kDeltaRecurrent, c.first_gate = Cell::kFirstGate, c.signals = kSignals<Cell>;
  c.has_cell = Cell::kHasCell, c.apart = kApartGates<Cell> != 0;
  c.carries_forward = kCarriesForward<Cell>, c.carries_backward = kCarriesBackward<Cell>;
  c.step_forward = step_forward<Cell, S>;
  c.step_hidden_norms = step_hidden_norms<Cell, S>, c.step_cell_norms = step_cell_norms<Cell, S>;
  c.step_receive = step_receive<Cell, S>;
  c.step_backward = step_backward<Cell, S>, c.step_initial = step_initial<Cell, S>;
  c.scan_forward = scan_forward<Cell, S>, c.scan_backward = scan_backward<Cell, S>;
  return c;
}

}  // namespace

template <class S>
const CudaCell<S>& cuda_cell(CellKind kind) {
#define RNNFAST_DESCRIBE(name, Cell, variant) describe<Cell, S>(),
  static const CudaCell<S> all[] = {RNNFAST_CELLS(RNNFAST_DESCRIBE)};
#undef RNNFAST_DESCRIBE
  return all[static_cast<int>(kind)];
}

template <class S>
Status input_rows(const LayerInputs<S>& in, S* copy, Factor<S>& x, Stream stream) {
  const Sequence& seq = in.sequence;
  if (rows_at_one_distance(in)) {
    const int64_t distance = seq.rows() <= 1 ? in.I : !seq.offsets && seq.B == 1 ? in.x_step : in.x_row;
    x = {in.x, distance};
    return {};
  }
  CopyRows<S> rows;
  rows.from = in.x;
  rows.inner = seq.offsets ? seq.rows() : seq.B;
  rows.outer_stride = in.x_step, rows.inner_stride = in.x_row;
  rows.to = copy, rows.rows = seq.rows(), rows.columns = static_cast<int>(in.I);
  x = {copy, in.I};
  return copy_rows(rows, stream);
}

Status device_sequence(const Sequence& sequence, const SequenceSpace& space, DeviceSequence& result,
                       Stream stream) {
  result.T = static_cast<int>(sequence.T);
  result.B = static_cast<int>(sequence.B);
  if (!sequence.offsets) return {};
  result.batch_sizes = space.batch_sizes, result.offsets = space.offsets, result.lengths = space.lengths;
  if (space.lengths) RNNFAST_TRY(upload(sequence.lengths, sequence.B, space.lengths, stream));
  RNNFAST_TRY(upload(sequence.batch_sizes, sequence.T, space.batch_sizes, stream));
  return upload(sequence.offsets, sequence.T + 1, space.offsets, stream);
}

template <class S>
Status check_layer(const char* operation, const CudaCell<S>& cell, const LayerInputs<S>& in, const CudaPlan& plan,
                   const void* workspace) {
  const Sequence& seq = in.sequence;
  const int64_t columns = cell.delta > cell.gates ? cell.delta : cell.gates;
  for (int64_t size : {seq.T, in.I, in.P, in.H})
    if (size < 1) return {operation, "T, I, H and P: expected at least 1"};
  for (int64_t size : {seq.T, seq.B, in.I, in.P, in.H})
    if (size > kMostOfASize) return {operation, "T, B, I, H and P: expected at most 2^30"};
  if (in.H > kMostOfASize / columns) return {operation, "H: expected at most 2^30 pre-activations of a sample"};
  if ((seq.offsets == nullptr) != (seq.batch_sizes == nullptr))
    return {operation, "batch_sizes and offsets: expected both, or none"};
  if (in.directions != 1 && in.directions != 2) return {operation, "directions: expected 1 or 2"};
  if (in.reversed && in.directions != 1) return {operation, "reversed: expected one direction"};
  if (in.projection && !cell.has_cell) return {operation, "projection: expected a cell with c"};
  if (in.P != in.H && !in.projection) return {operation, "P: expected H where there is no projection"};
  if (reinterpret_cast<uintptr_t>(workspace) % Arena::kPiece != 0)
    return {operation, "workspace: expected an address that is a multiple of 256"};
  if (plan.path != CudaPath::kPersistent) return {};
  if (in.projection) return {operation, "plan: a projection needs the step path"};
  if (plan.directions < 1 || plan.directions > in.directions)
    return {operation, "plan: expected as many directions in a launch as the layer has, or one"};
  return {};
}

StepRows step_rows(const Sequence& sequence, int64_t p, bool reverse) {
  const int64_t t = Sequence::time_of(p, sequence.T, reverse);
  StepRows rows;
  rows.t = static_cast<int>(t);
  rows.row = sequence.first_row(t);
  rows.active = static_cast<int>(sequence.active(t));
  rows.had_step = static_cast<int>(sequence.active_before(t, reverse));
  rows.has_next = static_cast<int>(sequence.active_after(t, reverse));
  rows.before = rows.had_step > 0 ? sequence.first_row(reverse ? t + 1 : t - 1) : 0;
  return rows;
}

#define RNNFAST_PARTS(S)                                                                                  \
  template const CudaCell<S>& cuda_cell<S>(CellKind);                                                     \
  template Status input_rows<S>(const LayerInputs<S>&, S*, Factor<S>&, Stream);                           \
  template Status check_layer<S>(const char*, const CudaCell<S>&, const LayerInputs<S>&, const CudaPlan&, \
                                 const void*);
RNNFAST_PARTS(float)
RNNFAST_PARTS(double)
RNNFAST_PARTS(Half)
RNNFAST_PARTS(BFloat16)

}  // namespace RNNFAST_NAMESPACE
