#pragma once

#include "math/variational.h"

namespace dkpnet::cuda {

// The arrays of math/variational.h on the current device. Both return a cudaError_t; neither checks labels (an image with
// one outside [0, domains) gets NaN). Needs dim + 2 * domains <= 4096.
int variational_forward(DType dtype, const VariationalSizes& sizes, const VariationalInputs& in, double dropout,
                        const VariationalOutputs& out, void* stream);
int variational_backward(DType dtype, const VariationalSizes& sizes, const VariationalInputs& in,
                         const VariationalGradients& grad, void* stream);

}  // namespace dkpnet::cuda
