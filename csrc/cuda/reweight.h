// Channel re-weighting on the GPU; see math/reweight.h. Conventions: cuda/common.h.
#pragma once

#include "math/reweight.h"

namespace dkpnet::cuda {

int reweight_forward(const reweight::Forward& args, void* stream);
int reweight_backward(const reweight::Backward& args, void* stream);

}  // namespace dkpnet::cuda
