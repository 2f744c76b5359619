// Bayesian loss on the CPU; see math/bayesian.h.
#pragma once

#include "cpu/isa.h"
#include "math/bayesian.h"

namespace dkpnet::cpu {

struct BayesianKernels {
  void (*forward)(const bayesian::Forward& args, int threads);
};
DKPNET_CPU_KERNELS(BayesianKernels, bayesian_kernels)

}  // namespace dkpnet::cpu
