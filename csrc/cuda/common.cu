#include "cuda/common.h"

#include <cuda_runtime.h>

namespace dkpnet::cuda {

const char* error_string(int error) { return cudaGetErrorString(static_cast<cudaError_t>(error)); }

DeviceGuard::DeviceGuard(int device) {
  error = cudaGetDevice(&previous_);
  if (!error && previous_ == device) previous_ = -1;
  else if (!error) error = cudaSetDevice(device);
}

DeviceGuard::~DeviceGuard() {
  if (previous_ >= 0) cudaSetDevice(previous_);
}

}  // namespace dkpnet::cuda
