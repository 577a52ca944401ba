// SPDX-License-Identifier: Apache-2.0
#include "../check.h"

int main() {
  for (const Test& test : tests()) {
    const int before = failures();
    test.run();
    std::printf("%-40s %s\n", test.name, failures() == before ? "ok" : "FAILED");
    std::fflush(stdout);
  }
  std::printf("%zu tests, %d failed checks\n", tests().size(), failures());
  return failures() == 0 ? 0 : 1;
}
