// Density targets on the CPU; see math/density.h.
#pragma once

#include "cpu/isa.h"
#include "math/density.h"

namespace dkpnet::cpu {

// Floats of workspace per image: what rounding lost of every cell, a head's shares along both axes, the weight table.
static inline int64_t density_workspace(int height, int width, int stride) {
  const int64_t rows = (height + stride - 1) / stride, columns = (width + stride - 1) / stride;
  return rows * columns + rows + columns + (height > width ? height : width) + 1;
}

struct DensityKernels {
  // `workspace`: batch * density_workspace(...) floats, uninitialised.
  void (*forward)(const DensityArgs& args, float* workspace, int threads);
};
DKPNET_CPU_KERNELS(DensityKernels, density)

}  // namespace dkpnet::cpu
