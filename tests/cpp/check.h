// SPDX-License-Identifier: Apache-2.0
// As much of a test framework as the core's tests need: named tests, and checks that print and count failures.
#pragma once

#include <cstdio>
#include <string>
#include <vector>

struct Test {
  const char* name;
  void (*run)();
};

inline std::vector<Test>& tests() {
  static std::vector<Test> all;
  return all;
}

inline int& failures() {
  static int count = 0;
  return count;
}

#define TEST(name)                            \
  static void test_##name();                  \
  static const int registered_##name = [] {   \
    tests().push_back({#name, &test_##name}); \
    return 0;                                 \
  }();                                        \
  static void test_##name()

#define CHECK(condition, ...)                                     \
  do {                                                            \
    if (!(condition)) {                                           \
      ++failures();                                               \
      std::printf("%s:%d: %s: ", __FILE__, __LINE__, #condition); \
      std::printf(__VA_ARGS__);                                   \
      std::printf("\n");                                          \
    }                                                             \
  } while (false)
