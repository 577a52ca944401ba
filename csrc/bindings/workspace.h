// SPDX-License-Identifier: Apache-2.0
// Scratch memory of one call. Up to a limit it is kept by the calling thread: fresh pages cost a fault each (some
// hundred a training step, measured), which at small batches is more than the work on them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

namespace rnnfast {

// Asks for pages of 2 MB behind this memory, where it spans any: one page fault instead of 512.
void prefer_huge_pages(void* memory, int64_t bytes);

class Workspace {
 public:
  explicit Workspace(int64_t bytes);
  Workspace(const Workspace&) = delete;
  Workspace& operator=(const Workspace&) = delete;
  ~Workspace();

  // 64-byte aligned, uninitialised.
  template <class T>
  T* as() const {
    return reinterpret_cast<T*>(memory_.get());
  }

  // What a thread keeps between calls, at most.
  static constexpr int64_t kKeptBytes = int64_t(64) << 20;

  struct Free {
    void operator()(std::byte* p) const;
  };
  using Memory = std::unique_ptr<std::byte[], Free>;

 private:
  Memory memory_;
  int64_t bytes_;
};

}  // namespace rnnfast
