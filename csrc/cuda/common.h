// What the bindings need of CUDA, without a CUDA header. Every launcher of csrc/cuda takes raw device pointers and the
// stream as a void*, allocates nothing, never synchronises, and returns a cudaError_t as an int (0: success).
#pragma once

namespace dkpnet::cuda {

const char* error_string(int error);

// Makes `device` current for the enclosing scope. `error` is what went wrong, 0 if nothing did.
class DeviceGuard {
 public:
  explicit DeviceGuard(int device);
  ~DeviceGuard();
  DeviceGuard(const DeviceGuard&) = delete;
  DeviceGuard& operator=(const DeviceGuard&) = delete;
  int error = 0;

 private:
  int previous_ = -1;
};

}  // namespace dkpnet::cuda
