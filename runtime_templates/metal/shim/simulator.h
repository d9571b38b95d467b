// Runs Metal kernels on the CPU: every thread of every grid, with what a GPU lets pass reported.
//
// - Texture accesses outside the texture, of the wrong format, of texels that nothing wrote since
//   their memory was reused, and two writes of one texel in one dispatch.
// - Loads and stores of buffers outside what is bound: the kernels' translation unit is compiled
//   with clang's load and store callbacks (-fsanitize-coverage), and all memory that Metal knows
//   lies in one reserved range of addresses.
// - Races between the threads of a group in threadgroup memory: a byte that one thread wrote and
//   another touched with no barrier in between.
// - Barriers and simdgroup functions that not all threads reach.
//
// A kernel that waits for others runs as fibers, one for each thread of a group; any other as a
// plain loop, its grid shared out over processor threads. An error ends the program.
#pragma once

#include <sys/mman.h>
#include <ucontext.h>

#include <algorithm>
#include <cstdarg>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <thread>
#include <vector>

#include "device.h"

namespace simulator {

inline std::uint32_t dispatch_number = 0;
inline const Kernel* first_kernel = nullptr;

inline const char*& Running() {
  static const char* name = "";
  return name;
}

__attribute__((used)) inline void Fail(const char* format, ...) {
  char text[256];
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(text, sizeof(text), format, arguments);
  va_end(arguments);
  std::fprintf(stderr, "kernel %s: %s\n", Running(), text);
  std::fflush(stderr);
  std::_Exit(3);
}

// --------------------------------------------------------------------- memory

// All buffers and heaps, each in pages of its own with pages that fault around it.
class Memory {
 public:
  static constexpr std::size_t kReserved = std::size_t{1} << 36U, kPage = 4096;

  static Memory& Get() {
    static Memory memory;
    return memory;
  }
  // Memory whose last byte is the last of a page.
  unsigned char* Allocate(std::size_t count) {
    const std::size_t pages = (count + kPage - 1) / kPage * kPage;
    if (next_ + pages + 2 * kPage > kReserved) Fail("the simulator has no more memory");
    unsigned char* at = base_ + next_ + kPage;
    next_ += pages + 2 * kPage;
    if (mprotect(at, pages, PROT_READ | PROT_WRITE) != 0) Fail("the machine has no more memory");
    // Aligned to 16 bytes, so up to 15 bytes of slack stay behind; bounds are checked apart.
    return at + (pages - (count + 15) / 16 * 16);
  }
  bool Inside(const void* p) const {
    return static_cast<std::size_t>(static_cast<const unsigned char*>(p) - base_) < kReserved;
  }

 private:
  Memory() {
    void* at = mmap(nullptr, kReserved, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at == MAP_FAILED) Fail("no address space for the simulator");
    base_ = static_cast<unsigned char*>(at);
  }
  unsigned char* base_ = nullptr;
  std::size_t next_ = 0;
};

// A range of memory that the running kernel may touch.
struct Bound {
  const unsigned char* first;
  std::size_t count;
  bool writable;
};

inline std::vector<Bound>& Bounds() {
  static std::vector<Bound> bounds;
  return bounds;
}

// ---------------------------------------------------------------------- groups

// One group of threads as fibers.
struct Group {
  static constexpr std::size_t kStack = 64 * 1024;
  static constexpr unsigned kLanes = 32;
  enum State { kReady, kAtBarrier, kAtSimd, kDone };

  std::vector<ucontext_t> contexts;
  std::vector<State> states;
  std::vector<float> exchange;
  std::vector<unsigned> together;  // calls of functions that a whole simdgroup makes
  ucontext_t scheduler;
  unsigned current = 0;
  std::function<void(unsigned)> body;
  // Threadgroup memory, and for each byte who wrote it and who read it since the last barrier:
  // 0 nobody, lane + 1, or kMany.
  static constexpr std::uint16_t kMany = 0xFFFF;
  unsigned char* memory = nullptr;
  std::vector<std::uint16_t> writers, readers;
};

inline Group*& CurrentGroup() {
  static thread_local Group* group = nullptr;
  return group;
}

inline void Yield(Group::State state) {
  Group* group = CurrentGroup();
  if (group == nullptr) Fail("a barrier in a kernel that was said to have none");
  const unsigned self = group->current;
  group->states[self] = state;
  swapcontext(&group->contexts[self], &group->scheduler);
}
__attribute__((used)) inline void GroupBarrier() { Yield(Group::kAtBarrier); }
__attribute__((used)) inline void SimdBarrier() { Yield(Group::kAtSimd); }

__attribute__((used)) inline Lanes Exchange(float x) {
  Group* group = CurrentGroup();
  if (group == nullptr) Fail("a simdgroup function in a kernel that was said to have none");
  const unsigned self = group->current, base = self / Group::kLanes * Group::kLanes;
  group->exchange[self] = x;
  SimdBarrier();
  const unsigned left = static_cast<unsigned>(group->exchange.size()) - base;
  return {group->exchange.data() + base, self - base, left < Group::kLanes ? left : Group::kLanes};
}

__attribute__((used)) inline bool AllReach() {
  Group* group = CurrentGroup();
  if (group == nullptr) Fail("a simdgroup function in a kernel that was said to have none");
  ++group->together[group->current];
  return group->current % Group::kLanes == 0;
}

inline void FiberMain(unsigned high, unsigned low) {
  const std::uintptr_t bits = (static_cast<std::uintptr_t>(high) << 32U) | low;
  Group* group = reinterpret_cast<Group*>(bits);
  group->body(group->current);
  group->states[group->current] = Group::kDone;
}

// Runs the fibers until all are done; a barrier opens when all threads stand at it.
inline void RunGroup(Group& group, unsigned count) {
  static thread_local std::vector<unsigned char> stacks;
  if (stacks.size() < count * Group::kStack) stacks.resize(count * Group::kStack);
  group.contexts.resize(count);
  group.states.assign(count, Group::kReady);
  group.exchange.assign(count, 0.0F);
  group.together.assign(count, 0);
  const std::uintptr_t bits = reinterpret_cast<std::uintptr_t>(&group);
  for (unsigned i = 0; i < count; ++i) {
    getcontext(&group.contexts[i]);
    group.contexts[i].uc_stack.ss_sp = stacks.data() + i * Group::kStack;
    group.contexts[i].uc_stack.ss_size = Group::kStack;
    group.contexts[i].uc_link = &group.scheduler;
    makecontext(&group.contexts[i], reinterpret_cast<void (*)()>(FiberMain), 2, static_cast<unsigned>(bits >> 32U), static_cast<unsigned>(bits));
  }
  CurrentGroup() = &group;
  for (;;) {
    bool ran = false;
    for (unsigned i = 0; i < count; ++i) {
      if (group.states[i] != Group::kReady) continue;
      ran = true;
      group.current = i;
      swapcontext(&group.scheduler, &group.contexts[i]);
    }
    if (ran) continue;
    for (unsigned i = 0; i < count; ++i) {
      if (group.together[i] != group.together[i / Group::kLanes * Group::kLanes]) Fail("a simdgroup function that not all threads reach");
    }
    // Nobody can go on: open what everyone waits for.
    bool opened = false;
    for (unsigned base = 0; base < count; base += Group::kLanes) {
      unsigned waiting = 0;
      const unsigned end = base + Group::kLanes < count ? base + Group::kLanes : count;
      for (unsigned i = base; i < end; ++i) waiting += group.states[i] == Group::kAtSimd;
      if (waiting == 0) continue;
      if (waiting != end - base) Fail("a simdgroup function that not all threads reach");
      for (unsigned i = base; i < end; ++i) group.states[i] = Group::kReady;
      opened = true;
    }
    if (opened) continue;
    unsigned waiting = 0, done = 0;
    for (unsigned i = 0; i < count; ++i) {
      waiting += group.states[i] == Group::kAtBarrier;
      done += group.states[i] == Group::kDone;
    }
    if (done == count) break;
    if (waiting != count) Fail("a barrier that not all threads of the group reach");
    for (unsigned i = 0; i < count; ++i) group.states[i] = Group::kReady;
    std::fill(group.writers.begin(), group.writers.end(), std::uint16_t{0});
    std::fill(group.readers.begin(), group.readers.end(), std::uint16_t{0});
  }
  CurrentGroup() = nullptr;
}

// What the callbacks of instrumented code call.
inline void Touch(const void* p, std::size_t count, bool write) {
  if (!Memory::Get().Inside(p)) return;  // the thread's own
  const unsigned char* at = static_cast<const unsigned char*>(p);
  Group* group = CurrentGroup();
  if (group != nullptr && at >= group->memory && at < group->memory + group->writers.size() + 4096 && group->memory != nullptr) {
    const std::size_t offset = static_cast<std::size_t>(at - group->memory);
    if (offset + count > group->writers.size()) Fail("byte %zu of %zu bytes of threadgroup memory", offset, group->writers.size());
    const std::uint16_t self = static_cast<std::uint16_t>(group->current + 1);
    for (std::size_t i = offset; i < offset + count; ++i) {
      std::uint16_t &writer = group->writers[i], &reader = group->readers[i];
      if ((writer != 0 && writer != self) || (write && reader != 0 && reader != self)) {
        const unsigned other = (writer != 0 && writer != self ? writer : reader) - 1U;
        Fail("a race on byte %zu of threadgroup memory between threads %u and %u", i, group->current, other);
      }
      if (write) {
        writer = self;
      } else {
        reader = reader == 0 || reader == self ? self : Group::kMany;
      }
    }
    return;
  }
  for (const Bound& bound : Bounds()) {
    if (at >= bound.first && at + count <= bound.first + bound.count) {
      if (write && !bound.writable) Fail("a store to a buffer of constants");
      return;
    }
  }
  Fail("a %s of %zu bytes outside the buffers that are bound", write ? "store" : "load", count);
}

// ------------------------------------------------------------------- dispatch

inline const Kernel* FindKernel(const char* name) {
  for (const Kernel* kernel = first_kernel; kernel != nullptr; kernel = kernel->next) {
    if (std::strcmp(kernel->name, name) == 0) return kernel;
  }
  return nullptr;
}

inline unsigned Processors() {
  const char* wanted = std::getenv("MDLC_METAL_THREADS");
  const unsigned count = wanted != nullptr ? static_cast<unsigned>(std::atoi(wanted)) : std::thread::hardware_concurrency();
  return count == 0 ? 1 : count;
}

inline void Run(const Kernel& kernel, Arguments arguments, Size groups, Size group_size, const std::size_t (&threadgroup_bytes)[Arguments::kMost]) {
  Running() = kernel.name;
  ++dispatch_number;
  for (unsigned i = 0; i < kernel.textures; ++i) {
    if (arguments.textures[i] == nullptr) Fail("texture %u is not set", i);
  }
  for (unsigned i = 0; i < kernel.buffers; ++i) {
    if (arguments.buffers[i] == nullptr) Fail("buffer %u is not set", i);
  }
  const unsigned count = group_size.x * group_size.y * group_size.z;
  if (count == 0 || count > 1024) Fail("groups of %u threads", count);
  const auto run_group = [&](unsigned gx, unsigned gy, unsigned gz, Group* group) {
    Position p;
    p.group = {gx, gy, gz};
    p.group_size = group_size;
    p.groups = groups;
    const auto body = [&](unsigned index, Position& at) {
      at.index = index;
      at.local = {index % group_size.x, index / group_size.x % group_size.y, index / (group_size.x * group_size.y)};
      at.grid = {gx * group_size.x + at.local.x, gy * group_size.y + at.local.y, gz * group_size.z + at.local.z};
      kernel.call(arguments, at);
    };
    if (group == nullptr) {
      for (unsigned i = 0; i < count; ++i) body(i, p);
      return;
    }
    std::fill(group->writers.begin(), group->writers.end(), std::uint16_t{0});
    std::fill(group->readers.begin(), group->readers.end(), std::uint16_t{0});
    // What a group finds in its memory is arbitrary: NaNs.
    std::memset(group->memory, 0xFF, group->writers.size());
    group->body = [&](unsigned index) {
      Position own = p;
      body(index, own);
    };
    RunGroup(*group, count);
  };
  if (kernel.waits) {
    static Group group;
    static std::size_t reserved = 0;
    std::size_t total = 0;
    for (const std::size_t bytes : threadgroup_bytes) total += (bytes + 15) / 16 * 16;
    if (total > 32 * 1024) Fail("%zu bytes of threadgroup memory, more than 32 KiB", total);
    if (group.memory == nullptr || reserved < total) {
      reserved = 32 * 1024;
      group.memory = Memory::Get().Allocate(reserved);
    }
    group.writers.assign(total, 0);
    group.readers.assign(total, 0);
    std::size_t at = 0;
    for (int i = 0; i < Arguments::kMost; ++i) {
      arguments.threadgroup_memory[i] = group.memory + at;
      at += (threadgroup_bytes[i] + 15) / 16 * 16;
    }
    for (unsigned z = 0; z < groups.z; ++z) {
      for (unsigned y = 0; y < groups.y; ++y) {
        for (unsigned x = 0; x < groups.x; ++x) run_group(x, y, z, &group);
      }
    }
    return;
  }
  const unsigned all = groups.x * groups.y * groups.z;
  const auto some = [&](unsigned first, unsigned step) {
    for (unsigned i = first; i < all; i += step) run_group(i % groups.x, i / groups.x % groups.y, i / (groups.x * groups.y), nullptr);
  };
  const unsigned processors = all * count < 4096 ? 1 : Processors();
  std::vector<std::thread> threads;
  for (unsigned i = 1; i < processors; ++i) threads.emplace_back(some, i, processors);
  some(0, processors);
  for (std::thread& thread : threads) thread.join();
}

}  // namespace simulator
