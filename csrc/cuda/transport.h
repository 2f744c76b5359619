// Optimal transport on the GPU; see math/transport.h. Conventions: cuda/common.h.
#pragma once

#include "math/transport.h"

namespace dkpnet::cuda {

// One launch, a block per image; uses args.workspace.
int transport_forward(const transport::Forward& args, void* stream);

}  // namespace dkpnet::cuda
