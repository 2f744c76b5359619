// Channel re-weighting on the CPU; see math/reweight.h.
#pragma once

#include "cpu/isa.h"
#include "math/reweight.h"

namespace dkpnet::cpu {

struct ReweightKernels {
  void (*forward)(const reweight::Forward& args, int threads);
  void (*backward)(const reweight::Backward& args, int threads);
};
DKPNET_CPU_KERNELS(ReweightKernels, reweight)

}  // namespace dkpnet::cpu
