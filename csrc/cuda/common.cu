#include <cuda_runtime.h>

#include "cuda/common.h"

namespace dkpnet::cuda {
namespace {

__global__ void probe_kernel() {}

}  // namespace

int probe() {
  cudaFuncAttributes attributes;
  const int error = int(cudaFuncGetAttributes(&attributes, probe_kernel));
  cudaGetLastError();  // clears the error, so that no later call reports it
  return error;
}

const char* error_string(int error) { return cudaGetErrorString(static_cast<cudaError_t>(error)); }

}  // namespace dkpnet::cuda
