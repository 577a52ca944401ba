// SPDX-License-Identifier: Apache-2.0
// Bounds, alignment, memory never written; each is reported before memory is touched.
#include <cmath>
#include <vector>

#include "run.h"

namespace RNNFAST_NAMESPACE {
namespace {

struct Access {
  float* buffer;  // [64]
  int mode;
};

RNNFAST_KERNEL(32, 1) access_memory(Access p) {
  const SharedView<float> dynamic = dynamic_shared<float>(16, 32);
  RNNFAST_SHARED(float, fixed, 48);
  const ExchangeView<float> buffer(p.buffer, 64);
  const int i = thread_index();
  dynamic.store(i, 1);
  fixed.store(i, 2);
  buffer.store(i, 3);
  sync_block();
  const bool one = i == 5;
  switch (p.mode) {
    case 0:
      dynamic.load(i);
      fixed.load_pack<4>(i / 4 * 4);
      buffer.part(16, 16).load_pack<2>(4);
      return;
    case 1:
      if (one) dynamic.load(32);
      return;
    case 2:
      if (one) fixed.store(-1, 0);
      return;
    case 3:
      if (one) buffer.load_pack<4>(62);
      return;
    case 4:
      if (one) buffer.part(60, 5);
      return;
    case 5:
      if (one) buffer.part(32, 8).store(8, 0);
      return;
    case 6:
      if (one) fixed.load_pack<4>(2);
      return;
    case 7:
      if (one) buffer.load_pack<2>(3);
      return;
    case 8:
      if (one) fixed.load(40);
      return;
    case 9:
      if (one) fixed.load_pack<4>(32);
      return;
    case 10:
      if (one) dynamic_shared<float>(128, 32);
      return;
    case 11:
      if (one) dynamic_shared<float>(8, 4);
      return;
    case 12: {
      RNNFAST_SHARED(double, large, 6200);
      if (one) large.store(0, 0);
      return;
    }
    default:
      if (one) dynamic.store_pack<2>(5, Pack<float, 2>{});
  }
}

TEST(memory_reports) {
  std::vector<float> buffer(64);
  const auto run_mode = [&](int mode) { return run(access_memory, Access{buffer.data(), mode}, 1, 32, 160); };
  FOR_SEEDS CHECK_CLEAN(run_mode(0));
  CHECK_REPORT(run_mode(1), "bounds",
               "thread 5 of block (0, 0): load of 1 value at index 32 of a view of 32 values");
  CHECK_REPORT(run_mode(2), "bounds", "store of 1 value at index -1 of a view of 48 values in shared memory");
  CHECK_REPORT(run_mode(3), "bounds",
               "load_pack of 4 values at index 62 of a view of 64 values in an exchange buffer");
  CHECK_REPORT(run_mode(4), "bounds", "part of 5 values from 60 on, of a view of 64");
  CHECK_REPORT(run_mode(5), "bounds", "store of 1 value at index 8 of a view of 8 values");
  CHECK_REPORT(run_mode(6), "alignment",
               "load_pack at index 2, not aligned to 16 bytes: static shared array 0, byte 8");
  CHECK_REPORT(run_mode(7), "alignment", "load_pack at index 3, not aligned to 8 bytes");
  CHECK_REPORT(run_mode(8), "uninitialised read", "static shared array 0, byte 160");
  CHECK_REPORT(run_mode(9), "uninitialised read", "value 32 of a view of 48, 16 bytes");
  CHECK_REPORT(run_mode(10), "shared memory",
               "bytes 128 to 256 of dynamic shared memory, the launch asked for 160");
  CHECK_REPORT(run_mode(11), "shared memory", "not a multiple of 16");
  CHECK_REPORT(run_mode(12), "shared memory", "bytes of static");
  CHECK_REPORT(run_mode(13), "alignment", "store_pack at index 5");
  CHECK_REPORT(run_mode(1), "bounds", "Access, launch ");
}

struct Fresh {
  double* out;  // [3]
};

RNNFAST_KERNEL(32, 1) read_fresh(Fresh p) {
  RNNFAST_SHARED(float, a, 8);
  RNNFAST_SHARED(double, b, 8);
  const SharedView<Half> c = dynamic_shared<Half>(0, 8);
  if (thread_index() == 0) {
    p.out[0] = a.load(7);
    p.out[1] = b.load(7);
    p.out[2] = widen(c.load(7));
    a.store(7, 1);
    b.store(7, 1);
    c.store(7, narrow<Half>(1));
  }
}

// Without the check, what was never written is NaN, also where the launch before has written.
TEST(memory_begins_as_nan) {
  emulator::set_race_check(false);
  for (int i = 0; i < 2; ++i) {
    std::vector<double> out(3, 0);
    CHECK_CLEAN(run(read_fresh, Fresh{out.data()}, 2, 32, 16));
    for (size_t k = 0; k < 3; ++k) CHECK(std::isnan(out[k]), "array %zu: %g", k, out[k]);
  }
  emulator::set_race_check(true);
  std::vector<double> out(3, 0);
  CHECK_REPORT(run(read_fresh, Fresh{out.data()}, 2, 32, 16), "uninitialised read",
               "static shared array 0, byte 28");
}

// A static array of one instantiation of a kernel is not that of another.
template <class T>
RNNFAST_KERNEL(32, 1)
two_arrays(Fresh p) {
  RNNFAST_SHARED(T, a, 32);
  RNNFAST_SHARED(T, b, 32);
  a.store(thread_index(), T(1));
  b.store(thread_index(), T(2));
  sync_block();
  if (thread_index() == 0) p.out[0] = double(a.load(31)) + 10 * double(b.load(31));
}

TEST(memory_static_arrays) {
  double out = 0;
  CHECK_CLEAN(run(two_arrays<float>, Fresh{&out}, 1, 32));
  CHECK(out == 21, "%g", out);
  CHECK_CLEAN(run(two_arrays<double>, Fresh{&out}, 1, 32));
  CHECK(out == 21, "%g", out);
}

}  // namespace
}  // namespace RNNFAST_NAMESPACE
