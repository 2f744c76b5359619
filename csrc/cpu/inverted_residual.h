// Inverted residual for inference on the CPU; see math/inverted_residual.h.
#pragma once

#include "cpu/isa.h"
#include "math/inverted_residual.h"

namespace dkpnet::cpu {

// Whether this processor has AVX512_BF16, which x86-64-v4 does not include.
inline bool has_bf16_dot_products() {
#ifdef DKPNET_X86_LEVELS
  unsigned a = 0, b, c, d;
  return detected_isa() == Isa::avx512 && __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a & (1u << 5));
#else
  return false;
#endif
}

struct InvertedResidualKernels {
  // Floats of scratch that one thread needs; a multiple of a cache line.
  int64_t (*scratch_size)(const inverted_residual::Forward&);
  void (*forward)(const inverted_residual::Forward&, int threads);
};
DKPNET_CPU_KERNELS(InvertedResidualKernels, inverted_residual_kernels)

}  // namespace dkpnet::cpu
