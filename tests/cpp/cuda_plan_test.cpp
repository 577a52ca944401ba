// SPDX-License-Identifier: Apache-2.0
// The plan for GPUs, on every known device, without one.
#include "cuda/plan.h"

#include <string>

#include "check.h"
#include "cuda/footprint.h"

using namespace rnnfast;

namespace {

CudaShape shape(int64_t T, int64_t B, int64_t H, int directions = 1, CudaDtype dtype = CudaDtype::kFloat) {
  CudaShape s;
  s.T = T, s.B = B, s.I = s.H = s.P = H;
  s.directions = directions;
  s.dtype = dtype;
  return s;
}

const CudaDevice& device(const char* name) { return *cuda_device(name); }

bool mentions(const CudaPlan& plan, const char* words) {
  for (const std::string& reason : plan.reasons)
    if (reason.find(words) != std::string::npos) return true;
  return false;
}

std::string describe(const CudaShape& s, const CudaDevice& d, const CudaPlan& p) {
  return std::string(d.name) + " " + cell_info(s.cell).name + " " + to_string(s.dtype) +
         (s.backward ? " bwd" : " fwd") + " T " + std::to_string(s.T) + " B " + std::to_string(s.B) + " H " +
         std::to_string(s.H) + " D " + std::to_string(s.directions) + ": " + to_string(p.path) + ", " +
         to_string(p.product) + ", units " + std::to_string(p.units) + ", blocks " + std::to_string(p.blocks) +
         ", columns " + std::to_string(p.columns) + ", directions " + std::to_string(p.directions) + ", shared " +
         std::to_string(p.shared_bytes);
}

constexpr CudaDtype kDtypes[] = {CudaDtype::kFloat, CudaDtype::kDouble, CudaDtype::kHalf, CudaDtype::kBFloat16};

// Calls f(shape, device) for every device, cell, dtype, direction of the pass, number of directions, and sizes.
template <class F>
void every_case(F f) {
  for (const std::string& name : cuda_device_names())
    for (int cell = 0; cell < kCellCount; ++cell)
      for (const CudaDtype dtype : kDtypes)
        for (const bool backward : {false, true})
          for (const int directions : {1, 2})
            for (const int64_t B : {1, 2, 3, 8, 9, 32, 128, 1000})
              for (const int64_t H : {1, 7, 64, 100, 256, 512, 1024, 1500, 4096}) {
                CudaShape s = shape(50, B, H, directions, dtype);
                s.cell = CellKind(cell);
                s.backward = backward;
                s.training = true;
                s.tf32 = B % 2 == 0;
                f(s, *cuda_device(name));
              }
}

// What a kernel needs of a persistent plan; empty where it is all there.
const char* what_is_wrong(const CudaShape& s, const CudaDevice& d, const CudaPlan& p) {
  const int gates = cell_info(s.cell).gates;
  if (p.units < 1 || int64_t(p.blocks) * p.units < s.H || int64_t(p.blocks - 1) * p.units >= s.H)
    return "the parts do not make the whole";
  if (p.directions < 1 || s.directions % p.directions != 0) return "directions";
  if (p.blocks * p.directions > d.processors) return "not resident at once";
  if (p.threads != kScanThreads || p.threads > d.threads || p.threads * 255 > d.registers)
    return "threads, registers";
  const ScanMemory memory =
      scan_memory(p.product, s.backward, gates, p.units, s.H, p.columns, value_bytes(s.dtype));
  if (p.shared_bytes != memory.bytes) return "shared memory is not what the kernel lays out";
  if (p.shared_bytes > d.shared_block || p.shared_bytes > d.shared_processor) return "too much shared memory";
  if (!scan_fits(p.product, s.backward, gates, p.units) || p.columns < 1) return "no such kernel";
  if (p.product == CudaProduct::kMma) {
    if (p.columns % mma_slice::kTileColumns != 0) return "columns";
    if (s.dtype == CudaDtype::kDouble || (s.dtype == CudaDtype::kFloat && !s.tf32))
      return "rounded by tensor cores";
    if (s.dtype != CudaDtype::kHalf && d.architecture < 80) return "no such tensor-core instruction";
  }
  return "";
}

}  // namespace

TEST(cuda_plans_fit_the_device) {
  int persistent = 0, step = 0, tensor = 0, pairs = 0;
  every_case([&](CudaShape s, const CudaDevice& d) {
    for (const CudaChoice choice : {CudaChoice::kBest, CudaChoice::kPersistent}) {
      s.choice = choice;
      const CudaPlan p = plan_cuda(s, d);
      CHECK(p.microseconds > 0 && p.fixed_microseconds > 0 && p.flops > 0 && p.bytes > 0, "%s: no prediction",
            describe(s, d, p).c_str());
      if (p.path == CudaPath::kStep) {
        ++step;
        CHECK(!p.reasons.empty(), "%s: no reason", describe(s, d, p).c_str());
        CHECK(p.units == 0 && p.shared_bytes == 0, "%s", describe(s, d, p).c_str());
        continue;
      }
      ++persistent;
      tensor += p.product == CudaProduct::kMma;
      pairs += p.directions == 2;
      const std::string wrong = what_is_wrong(s, d, p);
      CHECK(wrong.empty(), "%s: %s", describe(s, d, p).c_str(), wrong.c_str());
      CHECK(p.product == CudaProduct::kMma || mentions(p, "no tensor cores"), "%s: why no tensor cores?",
            describe(s, d, p).c_str());
      CHECK(p.directions == s.directions || mentions(p, "one direction after the other"), "%s: why not both?",
            describe(s, d, p).c_str());
      CHECK(p.other_microseconds > 0, "%s", describe(s, d, p).c_str());
    }
  });
  CHECK(persistent > 1000 && step > 1000 && tensor > 1000 && pairs > 1000, "%d, %d, %d, %d", persistent, step,
        tensor, pairs);
}

TEST(cuda_plan_without_reasons_is_the_same) {
  every_case([](const CudaShape& s, const CudaDevice& d) {
    const CudaPlan a = plan_cuda(s, d), b = plan_cuda(s, d, false);
    CHECK(b.reasons.empty() && a.path == b.path && a.units == b.units && a.columns == b.columns &&
              a.directions == b.directions && a.shared_bytes == b.shared_bytes && a.microseconds == b.microseconds,
          "%s", describe(s, d, a).c_str());
  });
}

// More work is never predicted to take less time: a larger batch, more units, more directions.
TEST(cuda_predictions_grow_with_the_work) {
  for (const std::string& name : cuda_device_names())
    for (const CudaDtype dtype : kDtypes)
      for (const bool backward : {false, true})
        for (const int directions : {1, 2}) {
          const auto total = [&](int64_t T, int64_t B, int64_t H) {
            CudaShape s = shape(T, B, H, directions, dtype);
            s.backward = backward;
            const CudaPlan p = plan_cuda(s, device(name.c_str()));
            return p.fixed_microseconds + double(T) * p.microseconds;
          };
          const double slack = 1 - 1e-12;
          double before = 0;
          for (int64_t H = 8; H <= 4096; H += H < 600 ? 8 : 128) {
            const double now = total(100, 16, H);
            CHECK(now >= before * slack, "%s %s H %lld: %g after %g", name.c_str(), to_string(dtype), (long long)H,
                  now, before);
            before = now;
          }
          before = 0;
          for (int64_t B = 8; B <= 4096; B += B < 100 ? 8 : 256) {
            const double now = total(100, B, 256);
            CHECK(now >= before * slack, "%s %s B %lld: %g after %g", name.c_str(), to_string(dtype), (long long)B,
                  now, before);
            before = now;
          }
          CHECK(total(200, 4, 128) > total(100, 4, 128), "%s: T", name.c_str());
        }
}

// No prediction beats what the device could do at most.
TEST(cuda_predictions_stay_below_the_peak) {
  every_case([](CudaShape s, const CudaDevice& d) {
    s.choice = CudaChoice::kPersistent;
    const CudaPlan p = plan_cuda(s, d, false);
    if (p.path != CudaPath::kPersistent) return;
    const int fma = p.product == CudaProduct::kMma  ? d.tensor_fma
                    : s.dtype == CudaDtype::kDouble ? d.double_fma
                                                    : d.float_fma;
    const double flops = p.cost.product * 1e3 * d.clock_ghz * d.processors * 2 * fma;
    CHECK(flops >= p.flops, "%s: %g us for %g flops", describe(s, d, p).c_str(), p.cost.product, p.flops);
    const double from_l2 = double(p.blocks) * p.directions * double(s.B) * double(s.H) * value_bytes(s.dtype);
    CHECK(p.cost.exchange * d.l2_gbs * 1e3 >= from_l2, "%s: %g us", describe(s, d, p).c_str(), p.cost.exchange);
    CHECK(p.cost.barrier * 1e3 > d.l2_latency_ns, "%s", describe(s, d, p).c_str());
  });
}

// Bytes of a step as the headers of the kernels state them (scan_forward.h, scan_backward.h).
TEST(cuda_bytes_are_those_of_the_kernels_headers) {
  every_case([](CudaShape s, const CudaDevice& d) {
    s.choice = CudaChoice::kPersistent;
    for (const bool training : {false, true}) {
      s.training = training;
      const CudaPlan p = plan_cuda(s, d, false);
      if (p.path != CudaPath::kPersistent) return;
      const CellInfo& cell = cell_info(s.cell);
      const double size = value_bytes(s.dtype), wide = compute_bytes(value_bytes(s.dtype));
      const double all = double(p.directions) * double(s.B) * double(s.H);
      const double exchanged = p.blocks * all * size * (s.backward ? cell.gates : 1);
      const double kept = all * (cell.saved * wide + (cell.has_cell ? wide : 0));
      const double bytes = s.backward ? all * (cell.saved * wide + size + (cell.has_cell ? 2 * wide : size)) +
                                            all * cell.delta * size
                                      : all * cell.gates * wide + all * 2 * size + (training ? kept : 0);
      CHECK(p.bytes == exchanged + bytes, "%s: %g bytes, not %g", describe(s, d, p).c_str(), p.bytes,
            exchanged + bytes);
    }
  });
}

TEST(cuda_step_path_counts_its_launches) {
  const CudaDevice& d = device("sm_90");
  for (const CellKind cell : {CellKind::lstm, CellKind::gru}) {
    CudaShape s = shape(100, 1, 512);
    s.cell = cell, s.backward = true, s.choice = CudaChoice::kStep;
    const double plain = plan_cuda(s, d).cost.launch, kernel = plain / 2;  // a product and the cell
    s.clip_norm = true;
    CHECK(plan_cuda(s, d).cost.launch == plain + kernel * (cell_info(cell).has_cell ? 2 : 1), "norms");
    s.clip_norm = false, s.projection = true, s.P = 128;
    CHECK(plan_cuda(s, d).cost.launch == plain + 2 * kernel, "a projection: its product, and what it receives");
    s.backward = false;
    CHECK(plan_cuda(s, d).cost.launch == plain + kernel, "a projection forward: its product");
  }
}

TEST(cuda_registers_hold_what_shared_memory_does_not) {
  every_case([](CudaShape s, const CudaDevice& d) {
    s.choice = CudaChoice::kPersistent;
    const CudaPlan p = plan_cuda(s, d, false);
    CHECK((p.path == CudaPath::kPersistent) == (p.weight_registers > 0), "%s", describe(s, d, p).c_str());
    CHECK(p.weight_registers <= kWeightWords, "%s: %d registers", describe(s, d, p).c_str(), p.weight_registers);
  });
}

TEST(cuda_without_cooperative_launches) {
  CudaDevice d = device("sm_90");
  d.cooperative = false;
  const CudaPlan p = plan_cuda(shape(100, 1, 512), d);
  CHECK(p.path == CudaPath::kStep && mentions(p, "no cooperative launches"), "%s", to_string(p.path));
}

// Where the multiprocessors cannot be shared out evenly: three units of two directions on five.
TEST(cuda_both_directions_on_an_odd_device) {
  for (int processors = 1; processors <= 9; ++processors)
    for (int64_t H = 1; H <= 32; ++H) {
      CudaShape s = shape(10, 1, H, 2);
      s.choice = CudaChoice::kPersistent;
      CudaDevice d = device("sm_90");
      d.processors = processors;
      const CudaPlan p = plan_cuda(s, d);
      CHECK(p.path == CudaPath::kPersistent, "%d multiprocessors, H %lld", processors, (long long)H);
      const std::string wrong = what_is_wrong(s, d, p);
      CHECK(wrong.empty(), "%d multiprocessors: %s: %s", processors, describe(s, d, p).c_str(), wrong.c_str());
    }
}

TEST(cuda_directions_share_a_launch_where_they_fit) {
  const CudaPlan small = plan_cuda(shape(100, 1, 256, 2), device("sm_90"));
  CHECK(small.directions == 2 && 2 * small.blocks <= 132, "%d directions, %d blocks", small.directions,
        small.blocks);
  // 69 blocks of a direction: one fits the device, two do not.
  const CudaPlan large = plan_cuda(shape(100, 1, 1104, 2), device("sm_90"));
  CHECK(large.path == CudaPath::kPersistent && large.directions == 1, "%s, %d directions", to_string(large.path),
        large.directions);
  CHECK(mentions(large, "one direction after the other: for both at once, on 132 multiprocessors"), "%s",
        large.reasons.empty() ? "" : large.reasons[0].c_str());
}

TEST(cuda_refusals_say_why) {
  CudaShape s = shape(100, 4, 256);
  s.choice = CudaChoice::kPersistent;
  CHECK(plan_cuda(s, device("sm_80")).path == CudaPath::kPersistent, "the plain case");
  CudaShape projected = s;
  projected.projection = true;
  projected.P = 64;
  CHECK(plan_cuda(projected, device("sm_80")).path == CudaPath::kStep, "a projection");
  CHECK(mentions(plan_cuda(projected, device("sm_80")), "a projection changes h"), "a projection");
  CudaShape clipped = s;
  clipped.clip_norm = true;
  CHECK(plan_cuda(clipped, device("sm_80")).path == CudaPath::kPersistent, "forward knows no clipping");
  clipped.backward = true;
  CHECK(mentions(plan_cuda(clipped, device("sm_80")), "norm of dL/dh"), "norm clipping");
  CudaShape large = shape(100, 1, 1024);
  const CudaPlan refused = plan_cuda(large, device("sm_75"));
  CHECK(refused.path == CudaPath::kStep && mentions(refused, "KB of shared memory") && mentions(refused, "64 KB"),
        "%s", refused.reasons.empty() ? "" : refused.reasons[0].c_str());
  const CudaPlan many = plan_cuda(shape(100, 1, 8192), device("sm_90"));
  CHECK(mentions(many, "a block would own 63 of 8192 units, and the kernels have code for 32"), "%s",
        many.reasons.empty() ? "" : many.reasons[0].c_str());
  CudaDevice small = device("sm_90");
  small.registers = 32768;
  CHECK(mentions(plan_cuda(s, small), "32768 registers"), "registers");
  CudaShape far = shape(int64_t(1) << 31, 1, 64);
  CHECK(mentions(plan_cuda(far, device("sm_90")), "2^31"), "more steps than an int counts");
  CudaShape asked = s;
  asked.choice = CudaChoice::kStep;
  CHECK(mentions(plan_cuda(asked, device("sm_80")), "asked for"), "the step path was asked for");
  CHECK(plan_cuda(asked, device("sm_80")).path == CudaPath::kStep, "the step path was asked for");
}

TEST(cuda_tensor_cores_where_they_may_round) {
  const auto product = [](const char* name, CudaDtype dtype, int64_t B, bool tf32) {
    CudaShape s = shape(100, B, 256, 1, dtype);
    s.tf32 = tf32;
    s.choice = CudaChoice::kPersistent;
    return plan_cuda(s, device(name)).product;
  };
  CHECK(product("sm_90", CudaDtype::kHalf, 16, false) == CudaProduct::kMma, "half");
  CHECK(product("sm_90", CudaDtype::kBFloat16, 16, false) == CudaProduct::kMma, "bfloat16");
  CHECK(product("sm_90", CudaDtype::kHalf, 4, false) == CudaProduct::kFma, "a batch of 4");
  CHECK(product("sm_90", CudaDtype::kFloat, 16, false) == CudaProduct::kFma, "float");
  CHECK(product("sm_90", CudaDtype::kFloat, 16, true) == CudaProduct::kMma, "tf32");
  CHECK(product("sm_90", CudaDtype::kDouble, 16, true) == CudaProduct::kFma, "double");
  CHECK(product("sm_75", CudaDtype::kHalf, 16, false) == CudaProduct::kMma, "half on sm_75");
  CHECK(product("sm_75", CudaDtype::kBFloat16, 16, false) == CudaProduct::kFma, "bfloat16 on sm_75");
  CHECK(product("sm_75", CudaDtype::kFloat, 16, true) == CudaProduct::kFma, "tf32 on sm_75");
}

TEST(cuda_devices_by_name) {
  CHECK(cuda_device("sm_90a") == cuda_device("sm_90") && cuda_device("sm_90"), "sm_90a");
  for (const char* name : {"", "sm_", "sm_9", "sm_900", "sm_13", "cuda", "a"})
    CHECK(cuda_device(name) == nullptr, "'%s' is known", name);
  for (const std::string& name : cuda_device_names()) {
    const CudaDevice& d = device(name.c_str());
    CHECK(name == "sm_" + std::to_string(d.architecture), "%s", name.c_str());
    CHECK(d.shared_block <= d.shared_processor && d.processors > 0 && d.clock_ghz > 0 && d.l2_latency_ns > 0 &&
              d.float_fma >= 64 && d.tensor_fma >= 256 && d.threads >= 1024,
          "%s", name.c_str());
  }
  const CudaDevice half = cuda_device_like(87, 41, 99 << 10, 100 << 10, 65536, 1536, 4 << 20);
  CHECK(half.architecture == 87 && half.processors == 41 && half.float_fma == 128, "the rates of sm_86");
  CHECK(half.bandwidth_gbs == device("sm_86").bandwidth_gbs / 2, "half the card, half its bandwidth");
  CHECK(cuda_device_like(70, 80, 96 << 10, 96 << 10, 65536, 2048, 6 << 20).float_fma == 64, "older than all");
}
