// Sampling and its regularisers on the CPU; see math/variational.h.
#pragma once

#include "cpu/isa.h"
#include "math/variational.h"

namespace dkpnet::cpu {

// The fewest images, and centres, that a thread gets: multiply-adds of about 0.5 ms, where a thread costs 0.02 to 0.2
// ms.
constexpr int64_t kVariationalGrain = 1 << 21;
inline int64_t images_per_thread(const variational::Sizes& s) {
  return 1 + kVariationalGrain / (1 + s.dim * (s.samples * (16 + s.domains) + s.domains * s.subs));
}
inline int64_t centers_per_thread(const variational::Sizes& s) {
  return 1 + kVariationalGrain / (s.dim * (1 + s.batch * (1 + s.samples) / s.subs));  // an image has one of the subs
}

struct VariationalKernels {
  void (*forward)(const variational::Forward& args, int threads);
  void (*backward)(const variational::Backward& args, int threads);
};
DKPNET_CPU_KERNELS(VariationalKernels, variational)

}  // namespace dkpnet::cpu
