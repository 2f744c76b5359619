#pragma once

#include "cpu/isa.h"
#include "math/pointwise.h"

namespace dkpnet::cpu {

struct PointwiseKernels {
  void (*mask)(const pointwise::Mask&, int threads);
};
DKPNET_CPU_KERNELS(PointwiseKernels, pointwise_kernels)

}  // namespace dkpnet::cpu
