#pragma once

#include "cpu/isa.h"
#include "math/common.h"

namespace dkpnet::cpu {

// x, out, grad, dx: [batch, channels, pixels] (channels_last: [batch, pixels, channels]), dense; attention, dattention:
// [batch, channels]; all of one dtype.
struct ReweightKernels {
  void (*forward)(DType dtype, const void* x, const void* attention, void* out, int64_t batch, int64_t channels,
                  int64_t pixels, bool channels_last, int threads);
  void (*backward)(DType dtype, const void* grad, const void* x, const void* attention, void* dx, void* dattention,
                   int64_t batch, int64_t channels, int64_t pixels, bool channels_last, int threads);
};
DKPNET_CPU_KERNELS(ReweightKernels, reweight)

}  // namespace dkpnet::cpu
