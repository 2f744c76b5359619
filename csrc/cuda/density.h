// Density targets on the GPU; see math/density.h.
#pragma once

#include "cuda/common.h"
#include "math/density.h"

namespace dkpnet::cuda {

// One launch on `stream`; writes every cell of args.out.
int density(const DensityArgs& args, void* stream);

}  // namespace dkpnet::cuda
