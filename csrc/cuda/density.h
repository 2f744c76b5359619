// Density targets on the GPU; see math/density.h. Conventions: cuda/common.h.
#pragma once

#include "math/density.h"

namespace dkpnet::cuda {

// One launch; writes every cell of args.out.
int density_forward(const density::Forward& args, void* stream);

}  // namespace dkpnet::cuda
