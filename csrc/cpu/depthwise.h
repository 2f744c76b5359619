// CPU loops of the depthwise convolution (csrc/math/depthwise.h says what it computes).
#pragma once

#include "cpu/isa.h"
#include "math/depthwise.h"

namespace dkpnet::cpu {

struct DepthwiseKernels {
  // Floats of scratch that one thread needs, in either direction.
  int64_t (*scratch_size)(const depthwise::Shape&);
  void (*forward)(const depthwise::Forward&, int threads);
  void (*backward)(const depthwise::Backward&, int threads);
};
DKPNET_CPU_KERNELS(DepthwiseKernels, depthwise_kernels)

}  // namespace dkpnet::cpu
