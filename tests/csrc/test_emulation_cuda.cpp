// The emulation itself: kernels that are right, and kernels whose faults memory_checker.h has to see.
#include "check.h"
#include "cuda/reduce.cuh"
#include "cuda_emulation.h"

namespace {

constexpr int kThreads = 96;

// Every thread reads what another warp has written.
template <bool Before, bool After>
__global__ void pass_on(int* out) {
  __shared__ int values[kThreads];
  for (int round = 0; round < 2; ++round) {
    values[threadIdx.x] = int(threadIdx.x) + round;
    if (Before) __syncthreads();
    const int value = values[(threadIdx.x + 32) % kThreads];
    if (After) __syncthreads();
    out[blockIdx.x * kThreads + threadIdx.x] = value;
  }
}

__global__ void within_a_warp(int* out) {
  __shared__ int values[32];
  values[threadIdx.x] = 1;
  out[threadIdx.x] = values[threadIdx.x / 2 * 2];
}

__global__ void unwritten(int* out) {
  __shared__ int values[32];
  if (threadIdx.x > 0) values[threadIdx.x] = 1;
  __syncthreads();
  out[threadIdx.x] = values[threadIdx.x];
}

__global__ void one_address(int* out) { *out = int(blockIdx.x); }

__global__ void neighbouring_block(int* out) {
  if (threadIdx.x > 0) return;
  out[blockIdx.x] = 1;
  if (blockIdx.x > 0 && out[blockIdx.x - 1] == 2) out[blockIdx.x] = 2;
}

// Both blocks read a place that one of them writes.
__global__ void read_by_two(int* out, unsigned writer) {
  if (threadIdx.x > 0) return;
  out[1 + blockIdx.x] = out[0];
  if (blockIdx.x == writer) out[0] = 8;
}

__global__ void two_barriers(int* out) {
  if (threadIdx.x < 32) {
    __syncthreads();
  } else {
    __syncthreads();
  }
  out[threadIdx.x] = 0;
}

__global__ void lanes(int* out) {
  const unsigned votes = __ballot_sync(~0u, threadIdx.x % 3 == 0);
  out[threadIdx.x] = __popc(votes) + int(__shfl_xor_sync(~0u, double(threadIdx.x), 5)) * 100;
}

bool has(const std::string& fault, const char* text) { return fault.find(text) != std::string::npos; }

}  // namespace

int main() {
  int out[4 * kThreads] = {};
  emulation::launch(4, kThreads, pass_on<true, true>, out);
  for (int i = 0; i < 4 * kThreads; ++i) CHECK(out[i] == (i + 32) % kThreads + 1);
  emulation::launch(1, 64, lanes, out);
  for (int i = 0; i < 64; ++i) CHECK(out[i] == 11 + (i ^ 5) * 100);
  CHECK(has(emulation::fault_of(1, 64, two_barriers, out), "threads wait at"));
#ifdef __SANITIZE_THREAD__
  CHECK(has(emulation::fault_of(1, kThreads, pass_on<false, true>, out), "not written"));
  CHECK(has(emulation::fault_of(1, kThreads, pass_on<true, false>, out), "in shared memory"));
  CHECK(has(emulation::fault_of(1, 32, within_a_warp, out), "in shared memory"));
  CHECK(has(emulation::fault_of(2, 32, unwritten, out), "not written"));
  CHECK(has(emulation::fault_of(2, 32, one_address, out), "two writes in global memory"));
  CHECK(has(emulation::fault_of(1, 32, one_address, out), "two writes in global memory"));
  CHECK(has(emulation::fault_of(3, 32, neighbouring_block, out), "a read and a write in global memory"));
  for (unsigned writer : {0u, 1u})  // whichever block runs first
    CHECK(has(emulation::fault_of(2, 32, read_by_two, out, writer), "a read and a write in global memory"));
#endif
  return check_result();
}
