// The attended head's tail on the GPU (csrc/math/head.h says what it computes). Conventions: cuda/common.h.
#pragma once

#include "math/head.h"

namespace dkpnet::cuda {

constexpr int kHeadHidden1 = 64, kHeadHidden2 = 32;  // the only widths that are compiled

// density: [B, height, width].
int head_forward(const head::Problem& problem, void* density, void* stream);

// grad_density [B, height, width] -> grad_hidden [B, height, width, hidden1], the gradient at hidden1 before its ReLU,
// and partials [B, ceil(height * width / kPart), gradient_size].
int head_backward(const head::Problem& problem, const void* grad_density, void* grad_hidden, float* partials,
                  void* stream);

// The adjoint of bilinear upsampling: grad [B, height, width, channels] -> out [B, rows, columns, channels], channels a
// multiple of 8.
int head_downsample(DType dtype, const void* grad, void* out, int64_t batch, int channels, int height, int width,
                    int rows, int columns, void* stream);

}  // namespace dkpnet::cuda
