#include "cuda/common.h"

#include <cuda_runtime.h>

namespace dkpnet::cuda {

const char* error_string(int error) { return cudaGetErrorString(static_cast<cudaError_t>(error)); }

}  // namespace dkpnet::cuda
