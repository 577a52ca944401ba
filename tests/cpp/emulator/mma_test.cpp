// SPDX-License-Identifier: Apache-2.0
// Tensor-core products of every shape against a plain loop, ldmatrix against what it should fetch.
#include <random>
#include <vector>

#include "run.h"

namespace RNNFAST_NAMESPACE {
namespace {

struct Product {
  const float *a, *b;  // [16, K], [K, 8], values that the format holds
  float* c;            // [16, 8]
};

template <class S>
uint32_t pair(float low, float high) {
  return fragment_word<S>(narrow<S>(low), narrow<S>(high));
}

// Written from PTX's figures for mma.m16n8k8 and mma.m16n8k16: a_i by its row and column.
template <class S, int K>
RNNFAST_KERNEL(32, 1)
multiply(Product p) {
  const int group = lane_index() >> 2, in_group = lane_index() % 4;
  FragmentA<S, K> a;
  FragmentB<S, K> b;
  for (int w = 0; w < a.kWords; ++w) {
    if constexpr (std::is_same_v<S, Tf32>) {
      const int row = w == 0 || w == 2 ? group : group + 8, column = w < 2 ? in_group : in_group + 4;
      a.word[w] = to_tf32(p.a[row * K + column]);
    } else {
      const int i = 2 * w, row = (i < 2) || (i >= 4 && i < 6) ? group : group + 8;
      const int column = in_group * 2 + (i >= 4 ? 8 : 0);
      a.word[w] = pair<S>(p.a[row * K + column], p.a[row * K + column + 1]);
    }
  }
  for (int w = 0; w < b.kWords; ++w) {
    if constexpr (std::is_same_v<S, Tf32>) {
      b.word[w] = to_tf32(p.b[(in_group + 4 * w) * 8 + group]);
    } else {
      const int row = in_group * 2 + 8 * w;
      b.word[w] = pair<S>(p.b[row * 8 + group], p.b[(row + 1) * 8 + group]);
    }
  }
  FragmentC c;
  for (int i = 0; i < 4; ++i) c.value[i] = p.c[(i < 2 ? group : group + 8) * 8 + in_group * 2 + (i & 1)];
  mma(c, a, b);
  for (int i = 0; i < 4; ++i) p.c[(i < 2 ? group : group + 8) * 8 + in_group * 2 + (i & 1)] = c.value[i];
}

template <class S, int K>
void check_product(const char* name) {
  std::mt19937 random(11);
  std::vector<float> a(16 * K), b(K * 8), c(16 * 8);
  // Small integers: exact in every format, sums exact in any order.
  for (std::vector<float>* v : {&a, &b, &c})
    for (float& x : *v) x = static_cast<float>(static_cast<int>(random() % 17) - 8);
  std::vector<float> expected = c;
  for (size_t m = 0; m < 16; ++m)
    for (size_t n = 0; n < 8; ++n)
      for (size_t k = 0; k < K; ++k) expected[m * 8 + n] += a[m * K + k] * b[k * 8 + n];
  FOR_SEEDS {
    std::vector<float> got = c;
    CHECK_CLEAN(run(multiply<S, K>, Product{a.data(), b.data(), got.data()}, 1, 32));
    for (size_t i = 0; i < got.size(); ++i)
      CHECK(got[i] == expected[i], "%s [%zu, %zu]: %g, expected %g, seed 11", name, i / 8, i % 8, double(got[i]),
            double(expected[i]));
  }
}

TEST(mma_half_16) { check_product<Half, 16>("half, K = 16"); }
TEST(mma_bfloat16_16) { check_product<BFloat16, 16>("bfloat16, K = 16"); }
TEST(mma_half_8) { check_product<Half, 8>("half, K = 8"); }
TEST(mma_tf32_8) { check_product<Tf32, 8>("tf32, K = 8"); }

TEST(mma_needs_its_device) {
  std::vector<float> a(256, 1), b(128, 1), c(128, 0);
  const Product p{a.data(), b.data(), c.data()};
  emulator::set_device("sm_75");
  CHECK_REPORT(run(multiply<BFloat16, 16>, p, 1, 32), "mma", "bfloat16 needs sm_80");
  CHECK_REPORT(run(multiply<Tf32, 8>, p, 1, 32), "mma", "tf32 needs sm_80");
  CHECK_CLEAN(run(multiply<Half, 8>, p, 1, 32));
  check_product<Half, 16>("half, K = 16, two products of K = 8");
  emulator::set_device("sm_80");
}

struct Matrices {
  uint32_t* out;  // [32, 4]
  int shift;      // of the first row, in values
  bool sync;
};

// Row r of the 32 rows of 8 values lies at row 31 - r of shared memory, so that the address must be used.
RNNFAST_KERNEL(32, 1) fetch_matrices(Matrices p) {
  const SharedView<Half> rows = dynamic_shared<Half>(0, 32 * 8 + 8);
  const int lane = lane_index();
  for (int i = 0; i < 8; ++i)
    rows.store((31 - lane) * 8 + i + p.shift, Half{static_cast<uint16_t>(100 * lane + i)});
  if (p.sync) sync_warp();
  uint32_t word[4];
  load_matrices(word, rows, (31 - lane) * 8 + p.shift);
  for (int m = 0; m < 4; ++m) p.out[lane * 4 + m] = word[m];
}

TEST(mma_load_matrices) {
  FOR_SEEDS for (const int shift : {0, 8}) {
    std::vector<uint32_t> out(128);
    CHECK_CLEAN(run(fetch_matrices, Matrices{out.data(), shift, true}, 1, 32, 264 * 2));
    for (uint32_t lane = 0; lane < 32; ++lane)
      for (uint32_t m = 0; m < 4; ++m) {
        const uint32_t low = 100 * (8 * m + lane / 4) + 2 * (lane % 4);
        CHECK(out[lane * 4 + m] == (low | (low + 1) << 16), "lane %u, matrix %u: %08x", lane, m, out[lane * 4 + m]);
      }
  }
  std::vector<uint32_t> out(128);
  CHECK_REPORT(run(fetch_matrices, Matrices{out.data(), 4, true}, 1, 32, 264 * 2), "alignment", "16 bytes");
  CHECK_REPORT(run(fetch_matrices, Matrices{out.data(), 0, false}, 1, 32, 264 * 2), "race", "write by thread");
}

}  // namespace
}  // namespace RNNFAST_NAMESPACE
