#pragma once

#include "math/variational.h"

namespace dkpnet::cuda {

// What fits into a block's shared memory: a row of z, the logits of an image.
constexpr int kVariationalMostDim = 2048, kVariationalMostDomains = 1024;

// The arrays of math/variational.h on the current device. Both return a cudaError_t; neither checks labels (an image with
// one outside [0, domains) gets NaN).
int variational_forward(DType dtype, const VariationalSizes& sizes, const VariationalInputs& in, double dropout,
                        const VariationalOutputs& out, void* stream);
int variational_backward(DType dtype, const VariationalSizes& sizes, const VariationalInputs& in,
                         const VariationalGradients& grad, void* stream);

}  // namespace dkpnet::cuda
