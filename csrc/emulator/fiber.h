// SPDX-License-Identifier: Apache-2.0
// Fibers: threads of execution with stacks of their own that hand over to each other by a function call.
#pragma once

#include <cstddef>
#include <vector>

#if !defined(__x86_64__) && !defined(__aarch64__) && !defined(RNNFAST_UCONTEXT)
#define RNNFAST_UCONTEXT
#endif
#if defined(RNNFAST_UCONTEXT)
#include <ucontext.h>
#endif

namespace rnnfast::emulator {

struct Fiber {
#if defined(RNNFAST_UCONTEXT)
  ucontext_t context;
#else
  void* stack_pointer = nullptr;
#endif
  char* stack = nullptr;  // its lowest byte; null: the OS thread's own
  size_t stack_bytes = 0;
  void* sanitizer_stack = nullptr;  // what AddressSanitizer keeps of a fiber that waits
};

// The next switch to the fiber calls entry, which must not return. Whatever ran on the stack before is forgotten.
void prepare_fiber(Fiber& fiber, void (*entry)());

// Goes on with `to`; returns when somebody switches back. ends: nobody ever will.
void switch_fiber(Fiber& from, Fiber& to, bool ends);

// First thing in an entry function. origin: the OS thread's own fiber, of whose stack AddressSanitizer is told
// here.
void fiber_entered(Fiber& fiber, Fiber& origin);

// Stacks, kept from launch to launch; one pool for each OS thread.
class StackPool {
 public:
  static constexpr size_t kStackBytes = 128 * 1024;
  StackPool() = default;
  StackPool(const StackPool&) = delete;
  StackPool& operator=(const StackPool&) = delete;
  ~StackPool();
  // At least `count` stacks. False: the system gives no more memory.
  bool reserve(size_t count);
  char* stack(size_t i) const { return stacks_[i]; }

 private:
  std::vector<char*> chunks_;
  std::vector<size_t> chunk_bytes_;
  std::vector<char*> stacks_;
};

}  // namespace rnnfast::emulator
