// Density targets on the CPU; see math/density.h.
#pragma once

#include "cpu/isa.h"
#include "math/density.h"

namespace dkpnet::cpu {

struct DensityKernels {
  void (*forward)(const density::Forward& args, int threads);
};
DKPNET_CPU_KERNELS(DensityKernels, density)

}  // namespace dkpnet::cpu
