// SPDX-License-Identifier: Apache-2.0
#include "bindings/workspace.h"

#include <new>
#include <utility>

namespace rnnfast {
namespace {

constexpr std::align_val_t kAlignment{64};

struct Kept {
  Workspace::Memory memory;
  int64_t bytes = 0;
};

Kept& kept() {
  thread_local Kept k;
  return k;
}

}  // namespace

void Workspace::Free::operator()(std::byte* p) const { ::operator delete[](p, kAlignment); }

Workspace::Workspace(int64_t bytes) : bytes_(bytes) {
  Kept& k = kept();
  if (k.bytes >= bytes) {
    memory_ = std::move(k.memory);
    bytes_ = std::exchange(k.bytes, 0);
    return;
  }
  memory_.reset(static_cast<std::byte*>(::operator new[](static_cast<size_t>(bytes), kAlignment)));
}

Workspace::~Workspace() {
  Kept& k = kept();
  if (bytes_ > kKeptBytes || bytes_ <= k.bytes) return;
  k.memory = std::move(memory_);
  k.bytes = bytes_;
}

}  // namespace rnnfast
