// Runs a CUDA kernel's source on the CPU, thread by thread, so that its logic (indices, fragment layouts, shared
// memory, barriers) is tested where there is no GPU. Not its speed, nor the rounding of its arithmetic.
//
// Every CUDA thread is a fiber. One randomly chosen warp runs at a time, until all its lanes wait for each other or for
// the block; blocks run in random order. memory_checker.h tells races and reads of unwritten shared memory, if the test
// is compiled with -fsanitize=thread (which CMake's option DKPNET_RACES does).
//
// EMULATION_SKIP=head.cu:169 in the environment removes that barrier: the test has to fail then. With
// EMULATION_BARRIERS=1 a program lists the barriers that it met.
#pragma once

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

#include <functional>
#include <set>
#include <string>
#include <vector>

#include "math/common.h"
#include "memory_checker.h"

#define __global__
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __shared__ static thread_local  // thread_local: memory_checker.cpp knows by it what is shared memory
#define __align__(n) __attribute__((aligned(n)))

struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(16) uint4 {
  uint32_t x, y, z, w;
};
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline uint4 make_uint4(uint32_t x, uint32_t y, uint32_t z, uint32_t w) { return {x, y, z, w}; }
inline float __uint_as_float(uint32_t x) { return dkpnet::bit_cast<float>(x); }
inline uint32_t __float_as_uint(float x) { return dkpnet::bit_cast<uint32_t>(x); }
inline int __popc(unsigned x) { return __builtin_popcount(x); }
template <typename T>
void __stcs(T* to, T value) {  // a store that the caches drop first
  *to = value;
}

namespace emulation {

struct Index {
  unsigned x;
};
inline Index thread_index, block_index, block_size;

// Of a barrier, in the source.
struct Site {
  const char* file = "";
  int line = 0;
  std::string name() const {
    const char* slash = strrchr(file, '/');
    return (slash ? slash + 1 : file) + (":" + std::to_string(line));
  }
};
inline std::set<std::string> barriers;  // all that were met
inline const char* const skipped = getenv("EMULATION_SKIP");
inline const int skipped_line = skipped && strchr(skipped, ':') ? atoi(strchr(skipped, ':') + 1) : 0;

constexpr size_t kStack = 256 << 10;

struct Fiber {
  ucontext_t context;
  enum { running, at_warp, at_block, done } state = running;
  Site barrier;  // the last one that it met
};

// What the lanes of a warp show each other at a meeting; two, so that the next meeting does not overwrite this one's.
struct Exchange {
  struct Lane {
    uint64_t value;
    uint32_t a[4], b[2];
    const void* row;
  } lanes[2][32];
};

struct Block {
  ucontext_t scheduler;
  std::vector<Fiber> fibers;
  std::vector<char> stacks;
  std::vector<Exchange> warps;
  std::vector<int> meetings;  // of every fiber at its warp
  std::function<void()> body;
  unsigned current = 0;
};
inline Block block;

inline unsigned random_below(unsigned limit) {
  static uint64_t state = 1;
  state = state * 6364136223846793005ull + 1442695040888963407ull;
  return unsigned((state >> 33) % limit);
}

inline void wait(decltype(Fiber::state) state) {
  const unsigned me = block.current;
  block.fibers[me].state = state;
  swapcontext(&block.fibers[me].context, &block.scheduler);
}

inline void fiber_main() {
  memory::watch(true);
  block.body();
  memory::watch(false);
  block.fibers[block.current].state = Fiber::done;
}

inline void barrier(const char* file, int line) {
  memory::watch(false);
  const Site site{file, line};
  Site& last = block.fibers[block.current].barrier;
  if (last.file != file || last.line != line) barriers.insert(site.name());
  if (line != skipped_line || site.name() != skipped) {
    last = site;
    wait(Fiber::at_block);
  }
  memory::watch(true);
}

// Shows `mine` to the warp and returns what all its lanes show.
inline const Exchange::Lane* meet(const Exchange::Lane& mine) {
  memory::watch(false);
  const unsigned me = block.current;
  Exchange::Lane* lanes = block.warps[me / 32].lanes[block.meetings[me]++ % 2];
  lanes[me % 32] = mine;
  wait(Fiber::at_warp);
  memory::watch(true);
  return lanes;
}

inline unsigned count(unsigned begin, unsigned end, decltype(Fiber::state) state) {
  unsigned found = 0;
  for (unsigned i = begin; i < end; ++i) found += block.fibers[i].state == state;
  return found;
}

// Lets those go on whom nobody keeps waiting.
inline bool release(unsigned begin, unsigned end, decltype(Fiber::state) state) {
  const unsigned waiting = count(begin, end, state);
  if (waiting == 0 || waiting + count(begin, end, Fiber::done) != end - begin) return false;
  for (unsigned i = begin; i < end; ++i)
    if (block.fibers[i].state == state) block.fibers[i].state = Fiber::running;
  return true;
}

inline void run_warp(unsigned warp) {
  for (unsigned i = warp * 32; i < warp * 32 + 32; ++i)
    if (block.fibers[i].state == Fiber::running) {
      block.current = thread_index.x = memory::thread = i;
      swapcontext(&block.scheduler, &block.fibers[i].context);
    }
  release(warp * 32, warp * 32 + 32, Fiber::at_warp);
}

// All threads are at a barrier, or done, or will never come.
inline void pass_barrier() {
  const unsigned threads = unsigned(block.fibers.size());
  Site site;
  for (const Fiber& fiber : block.fibers) {
    if (fiber.state != Fiber::at_block) continue;
    if (site.line && (site.line != fiber.barrier.line || site.file != fiber.barrier.file))
      memory::report("threads wait at " + site.name() + " and at " + fiber.barrier.name());
    site = fiber.barrier;
  }
  if (!release(0, threads, Fiber::at_block)) {
    fprintf(stderr, "emulated kernel: some threads wait for others that never come\n");
    abort();
  }
  memory::pass_barrier(site.name());
}

inline void run_block(unsigned threads) {
  block.fibers.assign(threads, Fiber());
  block.warps.assign(threads / 32, Exchange());
  block.meetings.assign(threads, 0);
  for (unsigned i = 0; i < threads; ++i) {
    ucontext_t& context = block.fibers[i].context;
    getcontext(&context);
    context.uc_stack.ss_sp = block.stacks.data() + i * kStack;
    context.uc_stack.ss_size = kStack;
    context.uc_link = &block.scheduler;
    makecontext(&context, fiber_main, 0);
  }
  while (count(0, threads, Fiber::done) < threads) {
    std::vector<unsigned> ready;
    for (unsigned warp = 0; warp < threads / 32; ++warp)
      if (count(warp * 32, warp * 32 + 32, Fiber::running)) ready.push_back(warp);
    if (ready.empty())
      pass_barrier();
    else
      run_warp(ready[random_below(unsigned(ready.size()))]);
  }
}

// Returns the first fault that memory_checker.h found, or nothing. `threads`: a multiple of 32.
template <typename... Parameters, typename... Arguments>
std::string fault_of(unsigned blocks, unsigned threads, void (*kernel)(Parameters...), Arguments... arguments) {
  block_size.x = threads;
  block.body = [=] { kernel(arguments...); };
  block.stacks.resize(threads * kStack);
  memory::begin_launch(block.stacks.data(), block.stacks.size());
  std::vector<unsigned> order(blocks);
  for (unsigned i = 0; i < blocks; ++i) {
    order[i] = i;
    std::swap(order[i], order[random_below(i + 1)]);
  }
  for (unsigned index : order) {
    block_index.x = index;
    memory::begin_block(index);
    run_block(threads);
  }
  return memory::fault;
}

template <typename... Parameters, typename... Arguments>
void launch(unsigned blocks, unsigned threads, void (*kernel)(Parameters...), Arguments... arguments) {
  const std::string fault = fault_of(blocks, threads, kernel, arguments...);
  if (fault.empty()) return;
  fprintf(stderr, "emulated kernel: %s\n", fault.c_str());
  exit(1);
}

// At the end of main.
inline void list_barriers() {
  if (getenv("EMULATION_BARRIERS"))
    for (const std::string& site : barriers) printf("%s\n", site.c_str());
}

// Shows a value of at most 8 bytes to the warp and returns that of another lane.
template <typename T>
T exchange(T value, unsigned from) {
  Exchange::Lane mine{};
  memcpy(&mine.value, &value, sizeof value);
  memcpy(&value, &meet(mine)[from].value, sizeof value);
  return value;
}

}  // namespace emulation

#define threadIdx emulation::thread_index
#define blockIdx emulation::block_index
#define blockDim emulation::block_size
#define __syncthreads() emulation::barrier(__FILE__, __LINE__)

template <typename T>
T __shfl_xor_sync(unsigned, T value, int mask) {
  return emulation::exchange(value, emulation::block.current % 32 ^ mask);
}

template <typename T>
T __shfl_sync(unsigned, T value, int lane) {
  return emulation::exchange(value, unsigned(lane));
}

inline unsigned __ballot_sync(unsigned, bool vote) {
  emulation::Exchange::Lane mine{};
  mine.value = vote;
  const auto* lanes = emulation::meet(mine);
  unsigned votes = 0;
  for (int lane = 0; lane < 32; ++lane) votes |= unsigned(lanes[lane].value) << lane;
  return votes;
}

// csrc/cuda/mma.h, from the tables of the PTX manual.
namespace dkpnet::cuda {

template <typename T>
uint32_t pack(float low, float high) {
  return narrow<T>(low).bits | uint32_t(narrow<T>(high).bits) << 16;
}

template <typename T>
float2 unpack(uint32_t pair) {
  return {widen(T{uint16_t(pair)}), widen(T{uint16_t(pair >> 16)})};
}

template <bool Transposed>
void load_matrices(uint32_t (&out)[4], const void* row) {
  if (reinterpret_cast<uintptr_t>(row) % 16) {
    fprintf(stderr, "load_matrices: a row is not at a multiple of 16 bytes\n");
    abort();
  }
  emulation::Exchange::Lane mine{};
  mine.row = row;
  const unsigned lane = emulation::block.current % 32;
  const auto* lanes = emulation::meet(mine);
  for (int matrix = 0; matrix < 4; ++matrix) {
    uint32_t values[2];
    for (unsigned e = 0; e < 2; ++e) {
      const unsigned r = Transposed ? lane % 4 * 2 + e : lane / 4, c = Transposed ? lane / 4 : lane % 4 * 2 + e;
      values[e] = static_cast<const uint16_t*>(lanes[matrix * 8 + r].row)[c];
    }
    out[matrix] = values[0] | values[1] << 16;
  }
}

template <typename T>
void multiply_add(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  emulation::Exchange::Lane mine{};
  for (int i = 0; i < 4; ++i) mine.a[i] = a[i];
  mine.b[0] = b0, mine.b[1] = b1;
  const unsigned lane = emulation::block.current % 32;
  const auto* lanes = emulation::meet(mine);
  const auto element = [](uint32_t pair, int half) { return widen(T{uint16_t(pair >> (16 * half))}); };
  for (int i = 0; i < 4; ++i) {
    const int row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
    for (int k = 0; k < 16; ++k)
      c[i] += element(lanes[row % 8 * 4 + k % 8 / 2].a[row / 8 + k / 8 * 2], k % 2) *
              element(lanes[column * 4 + k % 8 / 2].b[k / 8], k % 2);
  }
}

}  // namespace dkpnet::cuda
