// SPDX-License-Identifier: Apache-2.0
#include "cuda/plan.h"

#include <algorithm>
#include <climits>
#include <cstdio>

#include "cuda/cost.h"
#include "cuda/footprint.h"

namespace rnnfast {
namespace {

constexpr int kRegistersOfThread = 255;
// Tensor cores multiply eight samples at once; fewer leave them half idle, and plain multiply-adds round nothing.
constexpr int64_t kTensorBatch = 8;
constexpr int kMaxColumns = 256;  // samples of a pass

template <class... Values>
std::string text(const char* format, Values... values) {
  char buffer[256];
  std::snprintf(buffer, sizeof buffer, format, values...);
  return buffer;
}

std::string duration(double microseconds) {
  return microseconds < 1000 ? text("%.3g us", microseconds) : text("%.3g ms", microseconds / 1000);
}

struct Planner {
  const CudaShape& shape;
  const CudaDevice& device;
  const CellInfo& cell;
  int value;  // bytes

  int rows(int units) const { return shape.backward ? units : cell.gates * units; }
  int64_t depth() const { return shape.backward ? cell.gates * shape.H : shape.H; }
  ScanMemory memory(CudaProduct product, int units, int columns) const {
    return scan_memory(product, shape.backward, cell.gates, units, shape.H, columns, value);
  }

  int weight_registers(CudaProduct product, int units) const {
    const int64_t padded = (shape.backward ? cell.gates : 1) * exchange_ld(shape.H, value);
    return product == CudaProduct::kFma ? fma_slice::weight_words(rows(units), padded, value)
                                        : mma_slice::weight_words(rows(units), padded, shape.backward, value);
  }

  // Whether the kernels have code for so many units a block.
  bool compiled(CudaProduct product, int units) const {
    return scan_fits(product, shape.backward, cell.gates, units);
  }
  // Blocks that must be resident at once, one a multiprocessor.
  bool resident(int units, int directions) const {
    return ceil_div(shape.H, units) * directions <= device.processors;
  }

  ScanWork work(CudaProduct product, int units, int columns, int directions) const {
    const bool fma = product == CudaProduct::kFma;
    ScanWork w;
    w.product = product;
    w.rows = fma ? fma_slice::row_lanes(rows(units)) * fma_slice::kRows
                 : mma_slice::row_tiles(rows(units), shape.backward) * mma_slice::kTileRows;
    w.tile = fma ? fma_slice::tile_columns(columns, value) : mma_slice::kTileColumns;
    w.shared_weight_bytes = memory(product, units, columns).partial;
    w.depth = depth();
    w.columns = columns;
    w.units = units;
    w.blocks = int(ceil_div(shape.H, units)) * directions;
    w.directions = directions;
    return w;
  }

  // Why tensor cores are out of the question; null: they are not.
  const char* no_tensor_cores() const {
    if (shape.dtype == CudaDtype::kDouble) return "double: the kernels have no tensor-core product of it";
    if (shape.dtype == CudaDtype::kFloat && !shape.tf32)
      return "float products are not to be rounded to tf32 (torch.backends.cudnn.rnn.fp32_precision)";
    if (shape.dtype != CudaDtype::kHalf && device.architecture < 80) return "bfloat16 and tf32 need sm_80 or newer";
    if (shape.B < kTensorBatch) return "a batch below 8";
    return nullptr;
  }

  // Why the persistent path is out of the question whatever fits; empty: it is not.
  std::string no_persistent_path() const {
    if (!device.cooperative) return text("%s has no cooperative launches", device.name);
    if (shape.projection) return "a projection changes h between two steps: only the step path has it";
    if (shape.clip_norm && shape.backward)
      return "a limit on the norm of dL/dh needs whole rows of it, and no block has one: only the step path";
    if (std::max({shape.T, shape.B, cell.delta * shape.H}) > INT_MAX)
      return "a size beyond 2^31 - 1: only the step path counts so far";
    if (kScanThreads * kRegistersOfThread > device.registers || kScanThreads > device.threads)
      return text("a block of %d threads with %d registers each does not fit a multiprocessor of %s (%d registers)",
                  kScanThreads, kRegistersOfThread, device.name, device.registers);
    return {};
  }
};

struct Found {
  bool any = false;
  CudaPlan plan;
  double total = 0;  // of the call
};

// Every blocking that fits, by predicted time of the whole call.
void search(const Planner& p, CudaProduct product, int directions, Found& best) {
  const CudaShape& s = p.shape;
  const int launches = s.directions / directions;
  const int least = int(std::max<int64_t>(1, ceil_div(s.H * directions, p.device.processors)));
  for (int units = least; units <= s.H && p.compiled(product, units); ++units) {
    if (!p.resident(units, directions)) continue;
    // As few passes as shared memory allows.
    int columns = product == CudaProduct::kFma ? 1 : mma_slice::kTileColumns;
    int64_t bytes = p.memory(product, units, columns).bytes;
    const bool fits = bytes <= p.device.shared_block;
    while (columns < s.B && columns < kMaxColumns) {
      const int64_t more = p.memory(product, units, 2 * columns).bytes;
      if (more > p.device.shared_block) break;
      columns *= 2;
      bytes = more;
    }
    const ScanWork work = p.work(product, units, columns, directions);
    const CudaCost cost = scan_cost(s, p.device, work);
    const double fixed = launches * scan_fixed_cost(s, p.device, work), steps = double(s.T) * launches;
    const double total = fixed + steps * cost.total();
    if (fits && (!best.any || total < best.total)) {
      best.any = true;
      best.total = total;
      CudaPlan& plan = best.plan;
      plan.path = CudaPath::kPersistent;
      plan.product = product;
      plan.units = units;
      plan.blocks = int(ceil_div(s.H, units));
      plan.directions = directions;
      plan.threads = kScanThreads;
      plan.columns = columns;
      plan.shared_bytes = int(bytes);
      plan.weight_registers = p.weight_registers(product, units);
      plan.cost = cost;
      plan.microseconds = launches * cost.total();
      plan.fixed_microseconds = fixed;
      scan_traffic(s, work, plan.flops, plan.bytes);
    }
    // More units a block only make its product longer.
    const bool hopeful = !best.any || fixed + steps * (cost.product + cost.pointwise) < best.total;
    if (!hopeful) break;
  }
}

// What the smallest slice would need, where none fits.
std::string why_nothing_fits(const Planner& p, int directions) {
  const CudaShape& s = p.shape;
  const int64_t units = std::max<int64_t>(1, ceil_div(s.H * directions, p.device.processors));
  const std::string slice = text("on %d multiprocessors a block would own %lld of %lld units", p.device.processors,
                                 static_cast<long long>(units), static_cast<long long>(directions * s.H));
  if (units > kScanThreads || !p.compiled(CudaProduct::kFma, int(units))) {
    int most = 1;
    while (p.compiled(CudaProduct::kFma, most + 1)) ++most;
    return slice + text(", and the kernels have code for %d", most);
  }
  int64_t least = p.memory(CudaProduct::kFma, int(units), 1).bytes;
  if (!p.no_tensor_cores() && p.compiled(CudaProduct::kMma, int(units)))
    least = std::min(least, p.memory(CudaProduct::kMma, int(units), mma_slice::kTileColumns).bytes);
  return slice + text(", which needs %lld KB of shared memory with a batch of %lld in %s; there are %d KB",
                      static_cast<long long>(ceil_div(least, 1024)), static_cast<long long>(s.B),
                      to_string(s.dtype), p.device.shared_block / 1024);
}

CudaPlan step_plan(const CudaShape& s, const CudaDevice& device) {
  CudaPlan plan;
  plan.path = CudaPath::kStep;
  plan.threads = kStepThreads;
  plan.cost = step_cost(s, device);
  plan.microseconds = s.directions * plan.cost.total();
  plan.fixed_microseconds = step_fixed_cost(s, device);
  step_traffic(s, plan.flops, plan.bytes);
  return plan;
}

}  // namespace

CudaPlan plan_cuda(const CudaShape& shape, const CudaDevice& device, bool explain) {
  const Planner p{shape, device, cell_info(shape.cell), value_bytes(shape.dtype)};
  const CudaPlan step = step_plan(shape, device);
  Found best, paired;
  std::vector<std::string> reasons;
  const std::string never = p.no_persistent_path();
  const char* const no_tensor_cores = p.no_tensor_cores();
  if (never.empty()) {
    for (int directions = 1; directions <= shape.directions; ++directions) {
      Found& found = directions == 1 ? best : paired;
      search(p, CudaProduct::kFma, directions, found);
      if (!no_tensor_cores) search(p, CudaProduct::kMma, directions, found);
    }
  }
  const bool together = paired.any && paired.total <= best.total;
  const Found& found = together ? paired : best;
  const double step_total = step.fixed_microseconds + double(shape.T) * step.microseconds;
  const bool persistent = found.any && (shape.choice == CudaChoice::kPersistent ||
                                        (shape.choice == CudaChoice::kBest && found.total <= step_total));
  CudaPlan plan = persistent ? found.plan : step;
  plan.other_microseconds = persistent ? step.microseconds : found.any ? found.plan.microseconds : 0;
  if (!explain) return plan;

  if (!never.empty()) {
    reasons.push_back("no persistent path: " + never);
  } else if (!found.any) {
    reasons.push_back("no persistent path: " + why_nothing_fits(p, 1));
  } else if (!persistent && shape.choice == CudaChoice::kStep) {
    reasons.emplace_back("the step path was asked for");
  } else if (!persistent) {
    reasons.push_back("the persistent path fits, but is predicted to take " + duration(found.total) +
                      " a call, the step path " + duration(step_total));
  } else {
    if (shape.directions == 2 && !paired.any) {
      reasons.push_back("one direction after the other: for both at once, " + why_nothing_fits(p, 2));
    } else if (shape.directions == 2 && !together) {
      reasons.push_back("one direction after the other: predicted " + duration(best.total) +
                        " a call, both at once " + duration(paired.total));
    }
    if (plan.product == CudaProduct::kFma)
      reasons.push_back(std::string("no tensor cores: ") +
                        (no_tensor_cores ? no_tensor_cores : "multiply-adds are predicted to be as fast"));
  }
  plan.reasons = std::move(reasons);
  return plan;
}

const char* to_string(CudaDtype dtype) {
  switch (dtype) {
    case CudaDtype::kDouble:
      return "float64";
    case CudaDtype::kHalf:
      return "float16";
    case CudaDtype::kBFloat16:
      return "bfloat16";
    default:
      return "float32";
  }
}

const char* to_string(CudaPath path) { return path == CudaPath::kPersistent ? "persistent" : "step"; }

const char* to_string(CudaProduct product) {
  return product == CudaProduct::kMma ? "tensor cores" : "multiply-adds";
}

}  // namespace rnnfast
