// Depthwise convolution on the CPU; see math/depthwise.h.
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
