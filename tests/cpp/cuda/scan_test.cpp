// SPDX-License-Identifier: Apache-2.0
// The persistent path on the emulator, every cell, type, product, direction and option, against the plain loop.
#include "cuda/footprint.h"
#include "layer_case.h"

using namespace rnnfast;
using namespace rnnfast::emulated;

namespace {

constexpr double kTf32 = 400;  // of float's tolerance: 2^-7 of the largest value

// units of a block, samples of a pass.
CudaPlan plan_of(CudaProduct product, bool backward, const Problem& p, int units, int columns, int directions,
                 int value_bytes) {
  CudaPlan plan;
  plan.path = CudaPath::kPersistent;
  plan.product = product;
  plan.units = units;
  plan.blocks = static_cast<int>(ceil_div(p.H, units));
  plan.directions = directions;
  plan.threads = kScanThreads;
  plan.columns = columns;
  plan.shared_bytes =
      static_cast<int>(scan_memory(product, backward, p.cell.gates, units, p.H, columns, value_bytes).bytes);
  return plan;
}

struct Plans {
  CudaPlan forward, backward;
};

template <class S>
Plans plans_of(CudaProduct product, const Problem& p, int units, int columns) {
  return {plan_of(product, false, p, units, columns, p.D, sizeof(S)),
          plan_of(product, true, p, units, columns, p.D, sizeof(S))};
}

template <class S>
void check_drawn(CudaProduct product, unsigned first, unsigned count) {
  for (unsigned number = first; number < first + count; ++number) {
    DrawnCase drawn(number, 70, false, false);
    std::mt19937 gen(number);
    const auto below = [&](int64_t n) { return static_cast<int>(gen() % static_cast<unsigned>(n)); };
    if (product == CudaProduct::kMma) drawn.B = 1 + below(17);
    if (product == CudaProduct::kMma && sizeof(S) == 4) drawn.ask.tolerance_factor = kTf32;
    const Problem p = drawn.problem();
    const auto draw = [&](bool backward) {
      int most = 0;
      while (most < p.H && scan_fits(product, backward, p.cell.gates, most + 1)) ++most;
      const int least = static_cast<int>(ceil_div(p.H, 6));  // not too many blocks
      const int units = least >= most ? most : least + below(most - least + 1);
      const int columns = below(3) == 0 ? static_cast<int>(p.B) : 1 << below(4);
      return plan_of(product, backward, p, units, columns, 1 + below(p.D), sizeof(S));
    };
    const CudaPlan forward = draw(false), backward = draw(true);
    emulator::set_seed(number);
    const std::string difference = LayerCase<S>(p, drawn.ask).difference(forward, backward);
    CHECK(difference.empty(), "%s, units %d and %d, columns %d and %d", difference.c_str(), forward.units,
          backward.units, forward.columns, backward.columns);
  }
}

// A slice of which a part does not fit the registers: units so that a block's rows are `rows`, forward and
// backward.
template <class S>
void check_large(CudaProduct product, CellKind kind, int64_t H, int forward_rows, int backward_rows) {
  Problem p(kind, 2, 3, 2, H, H, 1, false, true);
  Ask ask;
  if (product == CudaProduct::kMma && sizeof(S) == 4) ask.tolerance_factor = kTf32;
  const Plans plans{plan_of(product, false, p, forward_rows / p.cell.gates, 3, 1, sizeof(S)),
                    plan_of(product, true, p, backward_rows, 2, 1, sizeof(S))};
  const auto partial = [&](bool backward, int units) {
    return scan_memory(product, backward, p.cell.gates, units, H, 1, sizeof(S)).partial;
  };
  CHECK(partial(false, plans.forward.units) > 0 || partial(true, plans.backward.units) > 0, "all in registers");
  LayerCase<S>(p, ask).check(plans.forward, plans.backward);
}

// Whether a broken kernel is noticed, by a report of the emulator or by a wrong result; and met at all.
template <class S>
bool mutation_is_caught(const char* name, CudaProduct product, const Problem& p, int units, int columns) {
  Ask ask;
  if (product == CudaProduct::kMma && sizeof(S) == 4) ask.tolerance_factor = kTf32;
  const Plans plans = plans_of<S>(product, p, units, columns);
  LayerCase<S> run(p, ask);
  run.check(plans.forward, plans.backward);
  emulator::set_mutation(name);
  const std::string difference = run.difference(plans.forward, plans.backward);
  const bool met = emulator::mutation_hits() > 0;
  emulator::set_mutation("");
  // A barrier left out is a race, or a read of what nobody has written yet, whatever the result.
  const auto says = [&](const char* words) { return difference.find(words) != std::string::npos; };
  const bool told = std::string(name).find("barrier") == std::string::npos || says("race") || says("uninitialised");
  if (!told) std::printf("%s: %s\n", name, difference.c_str());
  return met && !difference.empty() && told;
}

}  // namespace

TEST(scan_fma_float) { check_drawn<float>(CudaProduct::kFma, 10000, 60); }
TEST(scan_fma_double) { check_drawn<double>(CudaProduct::kFma, 11000, 40); }
TEST(scan_fma_half) { check_drawn<Half>(CudaProduct::kFma, 12000, 40); }
TEST(scan_fma_bfloat16) { check_drawn<BFloat16>(CudaProduct::kFma, 13000, 40); }
TEST(scan_mma_float) { check_drawn<float>(CudaProduct::kMma, 14000, 40); }
TEST(scan_mma_half) { check_drawn<Half>(CudaProduct::kMma, 15000, 40); }
TEST(scan_mma_bfloat16) { check_drawn<BFloat16>(CudaProduct::kMma, 16000, 40); }

TEST(scan_weights_in_shared_memory) {
  check_large<float>(CudaProduct::kFma, CellKind::lstm, 290, 128, 32);
  check_large<double>(CudaProduct::kFma, CellKind::gru, 110, 126, 64);
  check_large<Half>(CudaProduct::kFma, CellKind::rnn_tanh, 270, 128, 128);
  check_large<float>(CudaProduct::kMma, CellKind::rnn_tanh, 400, 64, 32);
  check_large<float>(CudaProduct::kMma, CellKind::lstm, 240, 32, 32);
  check_large<Half>(CudaProduct::kMma, CellKind::rnn_tanh, 780, 64, 32);
  check_large<BFloat16>(CudaProduct::kMma, CellKind::gru, 600, 63, 32);
}

TEST(scan_same_bits_in_any_order_of_threads) {
  for (CudaProduct product : {CudaProduct::kFma, CudaProduct::kMma})
    for (CellKind kind : {CellKind::lstm, CellKind::gru, CellKind::rnn_tanh}) {
      const Problem p(kind, 4, 9, 3, 45, 45, 2, true, true);
      const Plans plans = plans_of<BFloat16>(product, p, 10, 4);
      LayerCase<BFloat16> run(p, Ask());
      std::vector<unsigned char> bits;
      for (unsigned seed = 1; seed <= 4; ++seed) {
        emulator::set_seed(seed);
        run.check(plans.forward, plans.backward);
        if (seed == 1) bits = run.bits();
        CHECK(run.bits() == bits, "seed %u gave other bits than seed 1", seed);
      }
    }
}

TEST(scan_mutations_are_caught) {
  constexpr CudaProduct kFma = CudaProduct::kFma, kMma = CudaProduct::kMma;
  const Problem dense(CellKind::lstm, 4, 5, 3, 37, 37, 1, false, true);
  const Problem packed(CellKind::gru, 4, 5, 3, 37, 37, 2, true, true);
  for (const char* name :
       {"scan forward: barrier", "scan forward: grid barrier", "scan forward: half", "scan forward: padding",
        "scan backward: barrier", "scan backward: grid barrier", "scan backward: half", "scan: tail mask"}) {
    CHECK(mutation_is_caught<float>(name, kFma, dense, 10, 8), "%s", name);
    CHECK(mutation_is_caught<float>(name, kMma, packed, 10, 8), "%s", name);
  }
  CHECK(mutation_is_caught<float>("scan forward: barrier of passes", kFma, dense, 10, 2), "passes");
  CHECK(mutation_is_caught<float>("scan backward: barrier of passes", kFma, dense, 10, 2), "passes, backward");
  CHECK(mutation_is_caught<float>("sums: barrier", kFma, dense, 10, 2), "sums over rows");
  CHECK(mutation_is_caught<float>("scan backward: leave", kFma, packed, 10, 2), "leave");
  CHECK(mutation_is_caught<float>("product fma: half of the sums", kFma, dense, 10, 4), "sums");
  CHECK(mutation_is_caught<Half>("product mma: fragment", kMma, dense, 10, 8), "fragment, half");
  CHECK(mutation_is_caught<float>("product mma: fragment", kMma, dense, 10, 8), "fragment, tf32");
}

TEST(scan_errors) {
  const Problem p(CellKind::lstm, 2, 2, 3, 37, 37, 1, false, true);
  const auto expect = [&](const char* words, auto change) {
    Plans plans = plans_of<float>(CudaProduct::kFma, p, 10, 2);
    change(plans.forward);
    const std::string difference = LayerCase<float>(p, Ask()).difference(plans.forward, plans.backward);
    CHECK(difference.find(words) != std::string::npos, "expected %s; got %s", words, difference.c_str());
  };
  expect("beyond the kernels", [](CudaPlan& plan) { plan.units = 33; });
  expect("beyond the kernels", [](CudaPlan& plan) { plan.columns = 0; });
  expect("do not cover", [](CudaPlan& plan) { plan.blocks = 3; });
  expect("too small", [](CudaPlan& plan) { plan.shared_bytes -= 16; });
  expect("threads", [](CudaPlan& plan) { plan.threads = 128; });
}
