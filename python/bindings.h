// Shared by the bindings: pointers come as integers (tensor.data_ptr()), so no torch header is needed. The Python side
// (dkpnet_ext/ops/<stem>.py) has checked shapes, dtypes, devices and strides before it calls.
#pragma once

#include <pybind11/pybind11.h>

#include <stdexcept>
#include <string>

#include "math/common.h"
#ifdef DKPNET_CUDA
#include "cuda/common.h"
#endif

namespace py = pybind11;

namespace dkpnet {

using Pointer = uintptr_t;

template <typename T>
T* as(Pointer pointer) {
  return reinterpret_cast<T*>(pointer);
}

#ifdef DKPNET_CUDA
// Runs `launch()` (which returns a cudaError_t as int) with `device` current; an error becomes a RuntimeError.
template <typename Launch>
void on_device(int device, const char* name, Launch launch) {
  cuda::DeviceGuard guard(device);
  const int error = guard.error ? guard.error : launch();
  if (error) throw std::runtime_error(std::string("dkpnet_ext.") + name + " (cuda): " + cuda::error_string(error));
}
#endif

}  // namespace dkpnet
