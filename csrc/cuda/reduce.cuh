// Sums over a warp and over a block, always in the same order.
#pragma once

#include "cuda/runtime.h"

namespace dkpnet::cuda {

template <typename W>
static __device__ __forceinline__ W warp_sum(W value) {
  for (int step = 16; step > 0; step >>= 1) value += __shfl_xor_sync(0xffffffffu, value, step);
  return value;
}

// Every thread gets the sum; blockDim.x is a multiple of 32 and all threads take part. `shared`: one W per warp, for
// this sum alone (a second use needs a barrier before it).
template <typename W>
static __device__ __forceinline__ W block_sum(W value, W* shared) {
  value = warp_sum(value);
  if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = value;
  __syncthreads();
  value = 0;
  for (unsigned w = 0; w < blockDim.x / 32; ++w) value += shared[w];
  return value;
}

}  // namespace dkpnet::cuda
