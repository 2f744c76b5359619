// The tail of the attended density head on the CPU; see math/head.h.
#pragma once

#include "cpu/isa.h"
#include "math/head.h"

namespace dkpnet::cpu {

struct HeadKernels {
  void (*forward)(const head::Forward& args, int threads);
  void (*backward)(const head::Backward& args, int threads);
  void (*downsample)(const head::Downsample& args, int threads);
};
DKPNET_CPU_KERNELS(HeadKernels, head)

}  // namespace dkpnet::cpu
