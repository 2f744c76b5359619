#include <cuda_runtime.h>

#include "cuda/common.h"

namespace dkpnet::cuda {

const char* error_string(int error) { return cudaGetErrorString(static_cast<cudaError_t>(error)); }

}  // namespace dkpnet::cuda
