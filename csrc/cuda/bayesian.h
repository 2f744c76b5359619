// Bayesian loss on the GPU; see math/bayesian.h. Conventions: cuda/common.h.
#pragma once

#include "math/bayesian.h"

namespace dkpnet::cuda {

// One launch, a block per image; uses args.workspace.
int bayesian_forward(const bayesian::Forward& args, void* stream);

}  // namespace dkpnet::cuda
