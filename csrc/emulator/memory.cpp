// SPDX-License-Identifier: Apache-2.0
// Memory that threads share: where it lies, and the checks of an access.
#include <cstring>

#include "emulator/state.h"

namespace rnnfast::emulator {

namespace {

const char* name(Memory memory) { return memory == Memory::kShared ? "shared memory" : "an exchange buffer"; }

std::string who(const FiberThread& t) {
  return format("thread %d of block (%d, %d)", t.index, t.block_x, t.block_y);
}

// Where in its shared memory the running block has p.
std::string place(const void* p) {
  const Machine& m = machine();
  const BlockState& block = *m.running->block;
  const int64_t offset = static_cast<const char*>(p) - block.shared.get();
  if (offset < m.shape.shared_bytes)
    return format("dynamic shared memory, byte %lld", static_cast<long long>(offset));
  for (size_t i = 0; i < block.statics.size(); ++i) {
    const StaticArray& a = block.statics[i];
    if (offset >= a.offset && offset < a.offset + a.bytes)
      return format("static shared array %zu, byte %lld", i, static_cast<long long>(offset - a.offset));
  }
  return "shared memory";
}

}  // namespace

void* dynamic_shared_bytes(int byte_offset, int64_t bytes, int alignment) {
  const Machine& m = machine();
  if (byte_offset < 0 || bytes < 0 || byte_offset + bytes > m.shape.shared_bytes)
    fail("shared memory", "bytes %d to %lld of dynamic shared memory, the launch asked for %d", byte_offset,
         static_cast<long long>(byte_offset + bytes), m.shape.shared_bytes);
  if (byte_offset % alignment != 0)
    fail("shared memory", "view at byte %d of dynamic shared memory, not a multiple of %d", byte_offset, alignment);
  return m.running->block->shared.get() + byte_offset;
}

void* static_shared_bytes(const void* key, int64_t bytes) {
  const Machine& m = machine();
  BlockState& block = *m.running->block;
  for (const StaticArray& a : block.statics)
    if (a.key == key) return block.shared.get() + a.offset;
  const int64_t offset = (block.shared_used + 15) / 16 * 16;
  const int64_t of_statics = offset + bytes - m.shape.shared_bytes;
  if (offset + bytes > m.set.device.shared_block || of_statics > kMaxStaticShared)
    fail("shared memory", "%lld bytes of static and %d of dynamic shared memory, %s has %d (%d of them static)",
         static_cast<long long>(of_statics), m.shape.shared_bytes, m.set.device.name, m.set.device.shared_block,
         kMaxStaticShared);
  block.statics.push_back({key, offset, bytes});
  block.shared_used = offset + bytes;
  std::memset(block.shared.get() + offset, 0xff, static_cast<size_t>(bytes));
  return block.shared.get() + offset;
}

void check_access(Memory memory, Access access, const void* p, int bytes, int64_t index, int64_t count) {
  Machine& m = machine();
  ++m.count.accesses;
  if (!m.set.race_check) return;
  const FiberThread& self = *m.running;
  BlockState& block = *self.block;
  const bool shared = memory == Memory::kShared;
  Shadow& shadow = shared ? block.shadow : m.exchange;
  Conflict conflict;
  if (shadow.access({self.stamp, &block.seen}, access, reinterpret_cast<uintptr_t>(p), bytes, shared, conflict))
    return;
  const std::string where = (shared ? place(p) : std::string(name(memory))) +
                            format(" (value %lld of a view of %lld, %d bytes)", static_cast<long long>(index),
                                   static_cast<long long>(count), bytes);
  if (conflict.stamp == 0)
    fail("uninitialised read", "%s reads what nobody has written: %s", who(self).c_str(), where.c_str());
  const char* const kinds[] = {"read", "write"};
  fail("race", "%s: %s by %s; %s by %s; no barrier orders them", where.c_str(),
       kinds[conflict.earlier == Access::kWrite], describe(m, conflict.stamp).c_str(),
       kinds[access == Access::kWrite], describe(m, self.stamp).c_str());
}

void fail_bounds(Memory memory, const char* operation, int64_t index, int values, int64_t count) {
  fail("bounds", "%s: %s of %d value%s at index %lld of a view of %lld values in %s",
       who(*machine().running).c_str(), operation, values, values == 1 ? "" : "s", static_cast<long long>(index),
       static_cast<long long>(count), name(memory));
}

void fail_alignment(Memory memory, const char* operation, const void* p, int64_t index, int bytes) {
  const std::string where = memory == Memory::kShared ? place(p) : name(memory);
  fail("alignment", "%s: %s at index %lld, not aligned to %d bytes: %s", who(*machine().running).c_str(), operation,
       static_cast<long long>(index), bytes, where.c_str());
}

void fail_part(Memory memory, int64_t first, int64_t part, int64_t count) {
  fail("bounds", "%s: part of %lld values from %lld on, of a view of %lld values in %s",
       who(*machine().running).c_str(), static_cast<long long>(part), static_cast<long long>(first),
       static_cast<long long>(count), name(memory));
}

}  // namespace rnnfast::emulator
