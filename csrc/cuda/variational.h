// Sampling and its regularisers on the GPU; see math/variational.h. Conventions: cuda/common.h.
#pragma once

#include "math/variational.h"

namespace dkpnet::cuda {

int variational_forward(const variational::Forward& args, void* stream);
int variational_backward(const variational::Backward& args, void* stream);

}  // namespace dkpnet::cuda
