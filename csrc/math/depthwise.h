// Depthwise convolution, channels last: out[y, x] = act(bias + sum_ij weight[i, j] * in[stride y - top + i, stride x -
// left + j]) for each channel. The data gradient gathers: in[v, u] has met weight[i, j] for out[(v + top - i) /
// stride, ...], so of every kernel row only those with i = (v + top) mod stride, and so for columns.
#pragma once

#include "math/activation.h"

namespace dkpnet::depthwise {

struct Shape {
  DType dtype;  // f32 or bf16: of in, out and their gradients
  int64_t batch;
  int channels, height, width, out_height, out_width;
  int kernel, stride, top, left;  // kernel 3 or 5, stride 1 or 2; top and left: rows and columns of padding
  Activation activation;
};

// Rows or columns of the output's gradient, those past its end being zeros, that the gradient of `size` inputs reads.
DKPNET_HD int gradient_extent(int size, int padding, int stride) { return (size - 1 + padding) / stride + 1; }

struct Forward {
  Shape shape;
  const void* in;       // [batch, height, width, channels]
  const float* weight;  // [kernel * kernel, channels]
  const float* bias;    // [channels]
  void* out;            // [batch, out_height, out_width, channels]
  float* scratch;       // [threads, scratch_size(shape)]
};

struct Backward {
  Shape shape;
  const void *in, *out, *grad_out;
  const float* weight;
  void* grad_in;    // null where nobody needs it
  float* partials;  // [batch, kernel * kernel + 1, channels]: the gradients of weight and bias; null where nobody needs
                    // them
  float* scratch;
};

}  // namespace dkpnet::depthwise
