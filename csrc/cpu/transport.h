// Optimal transport on the CPU; see math/transport.h.
#pragma once

#include "cpu/isa.h"
#include "math/transport.h"

namespace dkpnet::cpu {

struct TransportKernels {
  void (*forward)(const transport::Forward& args, int threads);
};
DKPNET_CPU_KERNELS(TransportKernels, transport_kernels)

}  // namespace dkpnet::cpu
