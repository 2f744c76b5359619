// Sampling and its regularisers on the CPU; see math/variational.h.
#pragma once

#include "cpu/isa.h"
#include "math/variational.h"

namespace dkpnet::cpu {

struct VariationalKernels {
  void (*forward)(const variational::Forward& args, int threads);
  void (*backward)(const variational::Backward& args, int threads);
};
DKPNET_CPU_KERNELS(VariationalKernels, variational)

}  // namespace dkpnet::cpu
