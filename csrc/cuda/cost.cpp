// SPDX-License-Identifier: Apache-2.0
#include "cuda/cost.h"

#include <algorithm>

#include "cuda/footprint.h"

namespace rnnfast {
namespace {

// Shares of the peak that a product reaches: instructions beside the multiply-adds (loads, conversions of 16-bit
// values, sums over lanes).
constexpr double kFmaShare = 0.5, kNarrowFmaShare = 0.25, kTensorShare = 0.4, kGemmShare = 0.5;
constexpr double kSharedBytes = 128, kL2Bytes = 64;  // a clock and multiprocessor
// Clocks of a pass besides its multiply-adds (sums over lanes and warps, two barriers of the block), and of the
// pointwise part of one unit of one sample, whose chain of activations is latency.
constexpr double kPassClocks = 200, kForwardClocks = 300, kBackwardClocks = 350;
// A grid barrier: what was written is seen (one trip to L2 and back), the counter grows (one), a poll sees it (one
// and a half on average); increments of one address follow each other.
constexpr double kBarrierTrips = 3.5, kIncrementNs = 1;
constexpr double kLaunch = 6, kGraphKernel = 2.5, kGemmFloor = 3;  // microseconds

double clocks_a_microsecond(const CudaDevice& d) { return d.clock_ghz * 1e3; }

// Multiply-adds a clock of a multiprocessor that a product of this dtype reaches.
double fma_rate(const CudaShape& s, const CudaDevice& d, CudaProduct product) {
  if (product == CudaProduct::kMma) return kTensorShare * (s.dtype == CudaDtype::kFloat ? 0.5 : 1.0) * d.tensor_fma;
  if (s.dtype == CudaDtype::kDouble) return kFmaShare * d.double_fma;
  return (s.dtype == CudaDtype::kFloat ? kFmaShare : kNarrowFmaShare) * d.float_fma;
}

// Bytes of a unit of one sample that a step reads and writes besides the exchanged state and weights, one
// direction; as the headers of the kernels count them.
double unit_bytes(const CudaShape& s) {
  const CellInfo& cell = cell_info(s.cell);
  const int value = value_bytes(s.dtype), wide = compute_bytes(value);
  const double c = cell.has_cell ? wide : 0;
  const double seen = cell.has_cell ? 0 : value;  // h_t or h_{t-1}, which the backward pass of these cells reads
  if (s.backward)
    return cell.saved * wide + 2 * c + seen + value + cell.delta * value;       // saved, c, c', grad_y, delta
  return cell.gates * wide + value + (s.training ? cell.saved * wide + c : 0);  // gates_x, y, saved, c
}

// In a scan the forward pass also writes h to where blocks exchange it; delta stands there already.
double scan_unit_bytes(const CudaShape& s) { return unit_bytes(s) + (s.backward ? 0 : value_bytes(s.dtype)); }

double state_bytes(const CudaShape& s) {  // of one direction, as the product reads it
  const CellInfo& cell = cell_info(s.cell);
  return double(s.B) * double(s.H) * value_bytes(s.dtype) * (s.backward ? cell.gates : 1);
}

double weight_bytes_of(const CudaShape& s) {
  return double(cell_info(s.cell).gates) * double(s.H) * double(s.P ? s.P : s.H) * value_bytes(s.dtype);
}

}  // namespace

CudaCost scan_cost(const CudaShape& s, const CudaDevice& d, const ScanWork& w) {
  const double clocks = clocks_a_microsecond(d), passes = double(ceil_div(s.B, w.columns));
  CudaCost cost;
  cost.barrier = (kBarrierTrips * d.l2_latency_ns + kIncrementNs * w.blocks) / 1e3;
  const double read = w.blocks * state_bytes(s);
  cost.exchange = d.l2_latency_ns / 1e3 + std::max(read / (d.l2_gbs * 1e3), state_bytes(s) / (kL2Bytes * clocks));
  const double tiles = double(ceil_div(s.B, w.tile));
  const double products = tiles * w.tile * double(w.rows) * double(w.depth);
  const double multiply = products / fma_rate(s, d, w.product);
  const double weights = tiles * double(w.shared_weight_bytes) / kSharedBytes;
  cost.product = (std::max(multiply, weights) + passes * kPassClocks) / clocks;
  // A thread has one unit, and of each pass's samples every (threads / units)-th.
  const double pairs = passes * double(ceil_div(std::min<int64_t>(s.B, w.columns), kScanThreads / w.units));
  cost.pointwise = pairs * (s.backward ? kBackwardClocks : kForwardClocks) / clocks +
                   w.directions * double(s.B) * double(s.H) * scan_unit_bytes(s) / (d.bandwidth_gbs * 1e3);
  return cost;
}

double scan_fixed_cost(const CudaShape& s, const CudaDevice& d, const ScanWork& w) {
  return kLaunch + w.directions * weight_bytes_of(s) / (d.bandwidth_gbs * 1e3);
}

void scan_traffic(const CudaShape& s, const ScanWork& w, double& flops, double& bytes) {
  const double gates = cell_info(s.cell).gates;
  flops = 2 * w.directions * gates * double(s.B) * double(s.H) * double(s.H);
  bytes = w.blocks * state_bytes(s) + w.directions * double(s.B) * double(s.H) * scan_unit_bytes(s);
}

CudaCost step_cost(const CudaShape& s, const CudaDevice& d) {
  const CellInfo& cell = cell_info(s.cell);
  const double P = double(s.P ? s.P : s.H), H = double(s.H), B = double(s.B);
  const bool tensor = s.dtype != CudaDtype::kDouble && (s.dtype != CudaDtype::kFloat || s.tf32);
  const bool has_tensor = tensor && (d.architecture >= 80 || s.dtype == CudaDtype::kHalf);
  const CudaProduct product = has_tensor ? CudaProduct::kMma : CudaProduct::kFma;
  const double rate = fma_rate(s, d, product) * d.processors * clocks_a_microsecond(d) * kGemmShare / kFmaShare;
  const double products = cell.gates * H * P * B + (s.projection ? H * P * B : 0);
  const double weights = weight_bytes_of(s) + (s.projection ? H * P * value_bytes(s.dtype) : 0);
  const double from = weights <= double(d.l2_bytes) / 2 ? d.l2_gbs : d.bandwidth_gbs;
  const int gemms = s.projection ? 2 : 1;
  CudaCost cost;
  // The cell's kernel; in the backward pass what a projection receives, and the norms of dL/dh and dL/dc.
  int kernels = 1;
  if (s.backward) kernels += (s.projection ? 1 : 0) + (s.clip_norm ? (cell.has_cell ? 2 : 1) : 0);
  cost.launch = kGraphKernel * (gemms + kernels);
  cost.exchange = weights / (from * 1e3);
  cost.product = gemms * kGemmFloor + products / rate;
  // The gates go through memory once more than in a scan.
  cost.pointwise =
      B * H * (unit_bytes(s) + 2 * cell.gates * compute_bytes(value_bytes(s.dtype))) / (d.bandwidth_gbs * 1e3);
  return cost;
}

double step_fixed_cost(const CudaShape&, const CudaDevice&) { return kLaunch; }

void step_traffic(const CudaShape& s, double& flops, double& bytes) {
  const CellInfo& cell = cell_info(s.cell);
  const double P = double(s.P ? s.P : s.H), H = double(s.H), B = double(s.B);
  flops = 2 * B * H * P * (cell.gates + (s.projection ? 1 : 0));
  bytes = weight_bytes_of(s) + (s.projection ? H * P * value_bytes(s.dtype) : 0) + state_bytes(s) +
          B * H * (unit_bytes(s) + 2 * cell.gates * compute_bytes(value_bytes(s.dtype)));
}

}  // namespace rnnfast
