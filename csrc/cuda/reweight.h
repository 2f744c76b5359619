#pragma once

#include "math/common.h"

namespace dkpnet::cuda {

// channels_last: rows (pixels) of an image that one block sums. Fixed, so that the sum's order does not depend on the GPU.
constexpr int64_t kReweightRows = 256;
inline int64_t reweight_splits(int64_t pixels) { return (pixels + kReweightRows - 1) / kReweightRows; }

// Same arrays as csrc/cpu/reweight.h, on the current device. `workspace`: for channels_last
// [batch, reweight_splits(pixels), channels] of the wide type, else unused. Both return a cudaError_t.
int reweight_forward(DType dtype, const void* x, const void* attention, void* out, int64_t batch, int64_t channels,
                     int64_t pixels, bool channels_last, void* stream);
int reweight_backward(DType dtype, const void* grad, const void* x, const void* attention, void* dx, void* dattention,
                      void* workspace, int64_t batch, int64_t channels, int64_t pixels, bool channels_last,
                      void* stream);

}  // namespace dkpnet::cuda
