#pragma once

#include "math/common.h"

namespace dkpnet::cuda {

// Same arrays as csrc/cpu/reweight.h; pointers are on the current device. Returns a cudaError_t.
int reweight_forward(DType dtype, const void* x, const void* attention, void* out, int64_t batch, int64_t channels,
                     int64_t pixels, bool channels_last, void* stream);
int reweight_backward(DType dtype, const void* grad, const void* x, const void* attention, void* dx, void* dattention,
                      int64_t batch, int64_t channels, int64_t pixels, bool channels_last, void* stream);

}  // namespace dkpnet::cuda
