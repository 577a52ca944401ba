// SPDX-License-Identifier: Apache-2.0
#include "emulator/fiber.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>

#if defined(__SANITIZE_ADDRESS__)
#define RNNFAST_ASAN
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define RNNFAST_ASAN
#endif
#endif
#if defined(RNNFAST_ASAN)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

// void rnnfast_fiber_switch(void** save, void* load): what the called function must keep goes onto the stack, whose
// pointer is left in *save; `load` is such a pointer left before, or made by prepare_fiber.
#if defined(__x86_64__)
asm(R"(
.text
.hidden rnnfast_fiber_switch
.globl rnnfast_fiber_switch
.type rnnfast_fiber_switch, @function
rnnfast_fiber_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size rnnfast_fiber_switch, .-rnnfast_fiber_switch
)");
#elif defined(__aarch64__)
asm(R"(
.text
.hidden rnnfast_fiber_switch
.globl rnnfast_fiber_switch
.type rnnfast_fiber_switch, @function
rnnfast_fiber_switch:
  sub sp, sp, #160
  stp x19, x20, [sp, #0]
  stp x21, x22, [sp, #16]
  stp x23, x24, [sp, #32]
  stp x25, x26, [sp, #48]
  stp x27, x28, [sp, #64]
  stp x29, x30, [sp, #80]
  stp d8, d9, [sp, #96]
  stp d10, d11, [sp, #112]
  stp d12, d13, [sp, #128]
  stp d14, d15, [sp, #144]
  mov x9, sp
  str x9, [x0]
  mov sp, x1
  ldp x19, x20, [sp, #0]
  ldp x21, x22, [sp, #16]
  ldp x23, x24, [sp, #32]
  ldp x25, x26, [sp, #48]
  ldp x27, x28, [sp, #64]
  ldp x29, x30, [sp, #80]
  ldp d8, d9, [sp, #96]
  ldp d10, d11, [sp, #112]
  ldp d12, d13, [sp, #128]
  ldp d14, d15, [sp, #144]
  add sp, sp, #160
  ret
.size rnnfast_fiber_switch, .-rnnfast_fiber_switch
)");
#endif
#if !defined(RNNFAST_UCONTEXT)
extern "C" void rnnfast_fiber_switch(void** save, void* load);
#endif

namespace rnnfast::emulator {

void prepare_fiber(Fiber& fiber, void (*entry)()) {
#if defined(RNNFAST_ASAN)
  __asan_unpoison_memory_region(fiber.stack, fiber.stack_bytes);
#endif
  fiber.sanitizer_stack = nullptr;
#if defined(RNNFAST_UCONTEXT)
  getcontext(&fiber.context);
  fiber.context.uc_stack.ss_sp = fiber.stack;
  fiber.context.uc_stack.ss_size = fiber.stack_bytes;
  fiber.context.uc_link = nullptr;
  makecontext(&fiber.context, entry, 0);
#else
  uintptr_t* top = reinterpret_cast<uintptr_t*>(fiber.stack + fiber.stack_bytes);
#if defined(__x86_64__)
  constexpr int kWords = 8, kEntry = 6;  // six registers, entry, and no address that entry could return to
#else
  constexpr int kWords = 20, kEntry = 11;  // kEntry: x30
#endif
  uintptr_t* const frame = top - kWords;
  std::memset(frame, 0, kWords * sizeof(uintptr_t));
  frame[kEntry] = reinterpret_cast<uintptr_t>(entry);
  fiber.stack_pointer = frame;
#endif
}

void switch_fiber(Fiber& from, Fiber& to, [[maybe_unused]] bool ends) {
#if defined(RNNFAST_ASAN)
  __sanitizer_start_switch_fiber(ends ? nullptr : &from.sanitizer_stack, to.stack, to.stack_bytes);
#endif
#if defined(RNNFAST_UCONTEXT)
  swapcontext(&from.context, &to.context);
#else
  rnnfast_fiber_switch(&from.stack_pointer, to.stack_pointer);
#endif
#if defined(RNNFAST_ASAN)
  __sanitizer_finish_switch_fiber(from.sanitizer_stack, nullptr, nullptr);
#endif
}

void fiber_entered([[maybe_unused]] Fiber& fiber, [[maybe_unused]] Fiber& origin) {
#if defined(RNNFAST_ASAN)
  const void* bottom = nullptr;
  size_t bytes = 0;
  __sanitizer_finish_switch_fiber(fiber.sanitizer_stack, &bottom, &bytes);
  if (!origin.stack) {  // the first to come from there learns where it is
    origin.stack = const_cast<char*>(static_cast<const char*>(bottom));
    origin.stack_bytes = bytes;
  }
#endif
}

// Below each stack lies a page that traps its overflow, as long as the system's number of mappings allows it (65530
// by default; two a stack).
constexpr size_t kGuarded = 16384;

bool StackPool::reserve(size_t count) {
  if (count <= stacks_.size()) return true;
  const size_t guard_bytes = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  const size_t more = count - stacks_.size(), each = kStackBytes + guard_bytes;
  void* const chunk =
      mmap(nullptr, more * each, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (chunk == MAP_FAILED) return false;
  chunks_.push_back(static_cast<char*>(chunk));
  chunk_bytes_.push_back(more * each);
  for (size_t i = 0; i < more; ++i) {
    char* const guard = static_cast<char*>(chunk) + i * each;
    if (stacks_.size() < kGuarded && mprotect(guard, guard_bytes, PROT_NONE) != 0) return false;
    stacks_.push_back(guard + guard_bytes);
  }
  return true;
}

StackPool::~StackPool() {
  for (size_t i = 0; i < chunks_.size(); ++i) munmap(chunks_[i], chunk_bytes_[i]);
}

}  // namespace rnnfast::emulator
