// Runs a CUDA kernel's source on the CPU, thread by thread, so that its logic (indices, fragment layouts, shared memory)
// is tested where there is no GPU. Not its speed, its races or its arithmetic's rounding.
//
// Every CUDA thread is a fiber. A fiber runs until it meets the others of its warp or block, then the next one runs.
#pragma once

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <ucontext.h>

#include <functional>
#include <vector>

#include "math/common.h"

#define __global__
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __shared__ static
#define __align__(n) __attribute__((aligned(n)))

struct float2 { float x, y; };
struct float4 { float x, y, z, w; };
struct uint4 { uint32_t x, y, z, w; };
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline uint4 make_uint4(uint32_t x, uint32_t y, uint32_t z, uint32_t w) { return {x, y, z, w}; }
inline float __uint_as_float(uint32_t x) { return dkpnet::bit_cast<float>(x); }
inline uint32_t __float_as_uint(float x) { return dkpnet::bit_cast<uint32_t>(x); }

namespace emulation {

struct Index { unsigned x; };

struct Fiber {
  ucontext_t context;
  std::vector<char> stack = std::vector<char>(256 << 10);
  enum { running, at_warp, at_block, done } state = running;
};

// What the lanes of a warp show each other at a meeting; two, so that the next meeting does not overwrite this one's.
struct Exchange {
  struct Lane { float value, c[4]; uint32_t a[4], b[2]; const void* row; } lanes[2][32];
};

struct Block {
  ucontext_t scheduler;
  std::vector<Fiber> fibers;
  std::vector<Exchange> warps;
  std::vector<int> meetings;  // of every fiber at its warp
  std::function<void()> body;
  unsigned current = 0;
};
inline Block block;
inline Index thread_index, block_index, block_size;

inline void wait(decltype(Fiber::state) state) {
  const unsigned me = block.current;
  block.fibers[me].state = state;
  swapcontext(&block.fibers[me].context, &block.scheduler);
}

inline void fiber_main() {
  block.body();
  block.fibers[block.current].state = Fiber::done;
}

// Shows `mine` to the warp and returns what all its lanes show.
inline Exchange::Lane* meet(const Exchange::Lane& mine) {
  const unsigned me = block.current;
  Exchange::Lane* lanes = block.warps[me / 32].lanes[block.meetings[me]++ % 2];
  lanes[me % 32] = mine;
  wait(Fiber::at_warp);
  return lanes;
}

// Lets those go on whom nobody keeps waiting; false if all are done.
inline bool release(unsigned begin, unsigned end, decltype(Fiber::state) state) {
  unsigned waiting = 0, done = 0;
  for (unsigned i = begin; i < end; ++i) {
    waiting += block.fibers[i].state == state;
    done += block.fibers[i].state == Fiber::done;
  }
  if (waiting > 0 && waiting + done == end - begin)
    for (unsigned i = begin; i < end; ++i)
      if (block.fibers[i].state == state) block.fibers[i].state = Fiber::running;
  return done < end - begin;
}

template <typename... Parameters, typename... Arguments>
void launch(unsigned blocks, unsigned threads, void (*kernel)(Parameters...), Arguments... arguments) {
  block_size.x = threads;
  block.body = [=] { kernel(arguments...); };
  block.fibers.resize(threads);
  for (block_index.x = 0; block_index.x < blocks; ++block_index.x) {
    block.warps.assign((threads + 31) / 32, Exchange());
    block.meetings.assign(threads, 0);
    for (Fiber& fiber : block.fibers) {
      fiber.state = Fiber::running;
      getcontext(&fiber.context);
      fiber.context.uc_stack.ss_sp = fiber.stack.data();
      fiber.context.uc_stack.ss_size = fiber.stack.size();
      fiber.context.uc_link = &block.scheduler;
      makecontext(&fiber.context, fiber_main, 0);
    }
    for (bool busy = true; busy;) {
      bool progress = false;
      for (unsigned i = 0; i < threads; ++i)
        if (block.fibers[i].state == Fiber::running) {
          progress = true;
          block.current = thread_index.x = i;
          swapcontext(&block.scheduler, &block.fibers[i].context);
        }
      for (unsigned warp = 0; warp < threads; warp += 32) release(warp, warp + 32, Fiber::at_warp);
      busy = release(0, threads, Fiber::at_block);
      if (busy && !progress) {
        fprintf(stderr, "emulated kernel: some threads wait for others that never come\n");
        abort();
      }
    }
  }
}

}  // namespace emulation

#define threadIdx emulation::thread_index
#define blockIdx emulation::block_index
#define blockDim emulation::block_size

inline void __syncthreads() { emulation::wait(emulation::Fiber::at_block); }

inline float __shfl_xor_sync(unsigned, float value, int mask) {
  emulation::Exchange::Lane mine{};
  mine.value = value;
  const unsigned lane = emulation::block.current % 32;
  return emulation::meet(mine)[lane ^ mask].value;
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
