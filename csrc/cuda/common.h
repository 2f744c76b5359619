// What the bindings need from CUDA, without a CUDA header. Every launcher in csrc/cuda takes raw pointers of the
// current device and the stream as a void*, allocates nothing, never synchronises, and returns a cudaError_t as an int
// (0: success).
#pragma once

namespace dkpnet::cuda {

const char* error_string(int error);

// Whether this build's kernels run on the current device (its architecture, the driver); launches nothing.
int probe();

}  // namespace dkpnet::cuda
