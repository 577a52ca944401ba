// SPDX-License-Identifier: Apache-2.0
// Launch and scheduling. A fiber runs until it waits; the next is drawn from those that are ready.
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "emulator/state.h"

namespace rnnfast::emulator {

__thread const Thread* current_thread = nullptr;

__thread Machine* current_machine = nullptr;

namespace {

// Thrown where a report ends the launch: unwinds the thread that found it. The others are left as they stand, with
// nothing on their stacks that would have to be destroyed.
struct Stopped {};

void fiber_main() {
  Machine& m = *current_machine;
  fiber_entered(m.running->fiber, m.origin);
  try {
    m.body(m.argument);
    m.end();
  } catch (const Stopped&) {
  }
  switch_fiber(m.running->fiber, m.origin, true);
}

std::string formatted(const char* format, va_list arguments) {
  char text[1024];
  std::vsnprintf(text, sizeof(text), format, arguments);
  return text;
}

// What a launch template says of itself, "... [with P = Name; ...]" or "... [P = Name]": Name.
std::string kernel_name(const char* what) {
  const std::string all = what;
  const size_t begin = all.find("P = ");
  if (begin == std::string::npos) return "kernel";
  const size_t end = all.find_first_of(";]", begin);
  return "kernel of " + all.substr(begin + 4, end - begin - 4);
}

Outcome outcome(const char* operation, const std::string& text) { return {operation, keep_text(text)}; }

// What the device refuses, in CUDA's words and the reason.
Outcome check_shape(const Shape& s, const Settings& set) {
  const CudaDevice& d = set.device;
  if (s.grid_x < 1 || s.grid_y < 1 || s.grid_y > 65535 || s.block < 1 || s.block > kMaxBlockThreads)
    return outcome("launch", format("invalid configuration argument: grid (%d, %d), block %d (at most %d threads)",
                                    s.grid_x, s.grid_y, s.block, kMaxBlockThreads));
  if (s.block % kWarpLanes != 0)
    return outcome("launch", format("invalid configuration argument: block of %d threads, not a multiple of %d",
                                    s.block, kWarpLanes));
  if (s.block > s.max_threads)
    return outcome("launch",
                   format("too many resources requested for launch: block of %d threads, launch bounds %d", s.block,
                          s.max_threads));
  if (s.shared_bytes < 0 || s.shared_bytes > d.shared_block)
    return outcome("launch", format("invalid argument: %d bytes of dynamic shared memory, %s has %d",
                                    s.shared_bytes, d.name, d.shared_block));
  const int64_t blocks = static_cast<int64_t>(s.grid_x) * s.grid_y;
  if (s.cooperative && blocks > d.processors)
    return outcome("launch", format("too many blocks in cooperative launch: %lld, %s holds %d at once",
                                    static_cast<long long>(blocks), d.name, d.processors));
  if (set.race_check && blocks > Stamp::kMaxBlocks)
    return outcome("launch", format("%lld blocks, the race check knows %d", static_cast<long long>(blocks),
                                    Stamp::kMaxBlocks));
  return {};
}

}  // namespace

void no_launch() {
  std::fprintf(stderr, "rnnfast emulator: device code outside of a launch\n");
  std::abort();
}

std::string format(const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  std::string text = formatted(format, arguments);
  va_end(arguments);
  return text;
}

void fail(const char* operation, const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  const std::string text = formatted(format, arguments);
  va_end(arguments);
  machine().stop(operation, text);
}

uint64_t Machine::next_random() {  // splitmix64
  uint64_t z = random += 0x9e3779b97f4a7c15u;
  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
  z = (z ^ z >> 27) * 0x94d049bb133111ebu;
  return z ^ z >> 31;
}

void Machine::make_ready(FiberThread* thread) {
  thread->wait = Wait::kNothing;
  ready.push_back(thread);
}

FiberThread* Machine::take_ready() {
  const size_t i = static_cast<size_t>((next_random() >> 32) * ready.size() >> 32);
  FiberThread* const next = ready[i];
  ready[i] = ready.back();
  ready.pop_back();
  current_thread = running = next;
  ++count.switches;
  return next;
}

void Machine::wait(Wait what) {
  FiberThread* const self = running;
  self->wait = what;
  yield();
}

void Machine::yield() {
  FiberThread* const self = running;
  if (ready.empty()) stop("deadlock", deadlock());
  FiberThread* const next = take_ready();
  if (next != self) switch_fiber(self->fiber, next->fiber, false);
}

void Machine::end() {
  FiberThread* const self = running;
  self->wait = Wait::kEnded;
  --alive;
  if (alive == 0) switch_fiber(self->fiber, origin, true);
  if (ready.empty()) stop("deadlock", deadlock());
  switch_fiber(self->fiber, take_ready()->fiber, true);
}

void Machine::stop(const char* operation, const std::string& text) {
  outcome = {operation, keep_text(kernel_name(what) + ", launch " + std::to_string(number) + ": " + text)};
  throw Stopped{};
}

void Machine::begin_block(BlockState& block, int index, size_t first_thread) {
  const size_t size = static_cast<size_t>(shape.block);
  block.x = index % shape.grid_x;
  block.y = index / shape.grid_x;
  block.index = index;
  block.arrived = 0;
  block.barriers = 0;
  block.threads.clear();
  block.warps.assign(size / kWarpLanes, WarpState{});
  if (!block.shared || block.shared_size < set.device.shared_block) {
    block.shared_size = set.device.shared_block;
    block.shared.reset(new char[static_cast<size_t>(block.shared_size)]);
  }
  std::memset(block.shared.get(), 0xff, static_cast<size_t>(shape.shared_bytes));  // NaN in every format
  block.shared_used = shape.shared_bytes;
  block.statics.clear();
  block.shadow.clear();
  block.seen.clear();
  block.acquired.clear();
  block.arrivals.clear();
  for (size_t i = 0; i < size; ++i) {
    FiberThread& t = threads[first_thread + i];
    t.index = static_cast<int>(i);
    t.block_threads = shape.block;
    t.block_x = block.x;
    t.block_y = block.y;
    t.grid_x = shape.grid_x;
    t.grid_y = shape.grid_y;
    t.block = &block;
    t.warp = &block.warps[i / kWarpLanes];
    t.stamp = Stamp::make(block.index, t.index, 0, 0);
    t.fiber.stack = stacks.stack(first_thread + i);
    // Not all tops at the same place of a page, which would be the same few sets of the cache.
    t.fiber.stack_bytes = StackPool::kStackBytes - i * 320 % 4096;
    prepare_fiber(t.fiber, fiber_main);
    block.threads.push_back(&t);
    make_ready(&t);
  }
  for (size_t w = 0; w < block.warps.size(); ++w) block.warps[w].first = static_cast<int>(w) * kWarpLanes;
  alive += size;
  count.fibers += size;
}

// Runs the threads that are ready until all have ended or one has failed.
void Machine::run() {
  switch_fiber(origin, take_ready()->fiber, false);
  running = nullptr;
  current_thread = nullptr;
  ready.clear();
  alive = 0;
}

Outcome Machine::launch() {
  const size_t grid = static_cast<size_t>(shape.grid_x) * static_cast<size_t>(shape.grid_y);
  const size_t at_once = shape.cooperative ? grid : 1, size = static_cast<size_t>(shape.block);
  if (!stacks.reserve(at_once * size))
    return emulator::outcome("launch", format("no memory for the stacks of %zu threads", at_once * size));
  if (threads.size() < at_once * size) threads = std::vector<FiberThread>(at_once * size);
  while (blocks.size() < at_once) blocks.push_back(std::make_unique<BlockState>());
  random = set.seed;
  outcome = {};
  origin = {};
  exchange.clear();
  counters.clear();
  std::vector<int> order(grid);
  for (size_t i = 0; i < grid; ++i) order[i] = static_cast<int>(i);
  if (shape.cooperative) {
    for (size_t i = 0; i < grid; ++i) begin_block(*blocks[i], order[i], i * size);
    run();
    return outcome;
  }
  for (size_t i = grid; i > 0 && !outcome.text; --i) {
    std::swap(order[i - 1], order[static_cast<size_t>(next_random() % i)]);
    begin_block(*blocks[0], order[i - 1], 0);
    run();
  }
  return outcome;
}

Outcome run_launch(const Shape& shape, void (*body)(const void*), const void* argument, const char* what) {
  if (current_machine) fail("launch", "a launch within a launch");
  const Settings set = settings();
  if (const Outcome refused = check_shape(shape, set); refused.text) return refused;
  static thread_local Machine m;
  m.shape = shape;
  m.set = set;
  m.body = body;
  m.argument = argument;
  m.what = what;
  m.count = {};
  m.count.launches = 1;
  m.number = next_launch_number();
  current_machine = &m;
  const Outcome result = m.launch();
  current_machine = nullptr;
  count_launch(m.count);
  return result;
}

}  // namespace rnnfast::emulator
