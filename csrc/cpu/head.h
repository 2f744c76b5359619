// CPU loops of the attended head's tail (csrc/math/head.h says what it computes).
#pragma once

#include "cpu/isa.h"
#include "math/head.h"

namespace dkpnet::cpu {

constexpr int kHeadMaxHidden = 128;  // widths of the hidden layers: multiples of 16 up to this

struct HeadKernels {
  // density: [B, height, width].
  void (*forward)(const head::Problem&, void* density, int threads);
  // grad_density [B, height, width] -> grad_hidden [B, height, width, hidden1], the gradient at hidden1 before its
  // ReLU, and partials [B, ceil(height * width / kPart), gradient_size] (written, not added to).
  void (*backward)(const head::Problem&, const void* grad_density, void* grad_hidden, float* partials, int threads);
  // The adjoint of bilinear upsampling: grad [B, height, width, channels] -> out [B, rows, columns, channels].
  void (*downsample)(DType, const void* grad, void* out, int64_t batch, int channels, int height, int width, int rows,
                     int columns, int threads);
};
DKPNET_CPU_KERNELS(HeadKernels, head_kernels)

}  // namespace dkpnet::cpu
