// Pointwise convolution for inference on the CPU; see math/projection.h.
#pragma once

#include "cpu/isa.h"
#include "math/projection.h"

namespace dkpnet::cpu {

struct ProjectionKernels {
  void (*forward)(const projection::Forward&, int threads);
};
DKPNET_CPU_KERNELS(ProjectionKernels, projection_kernels)

}  // namespace dkpnet::cpu
