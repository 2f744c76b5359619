// Sampling and its regularisers on the GPU; see math/variational.h. Conventions: cuda/common.h.
#pragma once

#include "math/variational.h"

namespace dkpnet::cuda {

// What fits into a block's shared memory: a row of z, the logits of an image.
constexpr int kVariationalMostDim = 2048, kVariationalMostDomains = 1024;

int variational_forward(const variational::Forward& args, void* stream);
int variational_backward(const variational::Backward& args, void* stream);

}  // namespace dkpnet::cuda
