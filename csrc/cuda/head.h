// The tail of the attended density head on the GPU; see math/head.h. Conventions: cuda/common.h.
#pragma once

#include "math/head.h"

namespace dkpnet::cuda {

int head_forward(const head::Forward& args, void* stream);
int head_backward(const head::Backward& args, void* stream);
int head_downsample(const head::Downsample& args, void* stream);

}  // namespace dkpnet::cuda
