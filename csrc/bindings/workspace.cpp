// SPDX-License-Identifier: Apache-2.0
#include "bindings/workspace.h"

#include <sys/mman.h>

#include <cstdlib>
#include <new>
#include <utility>

namespace rnnfast {
namespace {

// Weights stream through this memory step after step: pages of 2 MB spare the address translation.
constexpr int64_t kHugePage = int64_t(2) << 20;

struct Kept {
  Workspace::Memory memory;
  int64_t bytes = 0;
};

Kept& kept() {
  thread_local Kept k;
  return k;
}

}  // namespace

void prefer_huge_pages(void* memory, int64_t bytes) {
#ifdef MADV_HUGEPAGE
  const auto begin = (reinterpret_cast<uintptr_t>(memory) + kHugePage - 1) & ~uintptr_t(kHugePage - 1);
  const auto end =
      (reinterpret_cast<uintptr_t>(memory) + static_cast<uintptr_t>(bytes)) & ~uintptr_t(kHugePage - 1);
  // A wish: where the kernel refuses, small pages serve.
  if (end > begin) (void)madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
#else
  (void)memory;
  (void)bytes;
#endif
}

void Workspace::Free::operator()(std::byte* p) const { std::free(p); }

Workspace::Workspace(int64_t bytes) : bytes_(bytes) {
  Kept& k = kept();
  if (k.bytes >= bytes) {
    memory_ = std::move(k.memory);
    bytes_ = std::exchange(k.bytes, 0);
    return;
  }
  k = Kept{};  // too small: freed before its successor is taken, so that both never stand together
  const int64_t alignment = bytes >= kHugePage ? kHugePage : 64;
  bytes_ = (bytes + alignment - 1) / alignment * alignment;
  void* p = std::aligned_alloc(static_cast<size_t>(alignment), static_cast<size_t>(bytes_));
  if (p == nullptr) throw std::bad_alloc();
  if (alignment == kHugePage) prefer_huge_pages(p, bytes);  // whole pages only: the rest takes what it needs
  memory_.reset(static_cast<std::byte*>(p));
}

Workspace::~Workspace() {
  Kept& k = kept();
  if (bytes_ > kKeptBytes || bytes_ <= k.bytes) return;
  k.memory = std::move(memory_);
  k.bytes = bytes_;
}

}  // namespace rnnfast
