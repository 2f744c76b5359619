#pragma once

#include "cpu/isa.h"
#include "math/variational.h"

namespace dkpnet::cpu {

// Dropout keeps scores with probability 1 - dropout; 0 switches it off.
struct VariationalKernels {
  void (*forward)(DType dtype, const VariationalSizes& sizes, const VariationalInputs& in, double dropout,
                  const VariationalOutputs& out, int threads);
  void (*backward)(DType dtype, const VariationalSizes& sizes, const VariationalInputs& in,
                   const VariationalGradients& grad, int threads);
};
DKPNET_CPU_KERNELS(VariationalKernels, variational)

}  // namespace dkpnet::cpu
