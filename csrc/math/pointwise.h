// The parts of a pointwise (1x1) convolution that are not matrix products: the activation's mask and the bias'
// gradient.
#pragma once

#include "math/activation.h"

namespace dkpnet::pointwise {

constexpr int kUnit = 16;   // widths should be multiples of it, for whole vectors
constexpr int kRows = 128;  // rows whose sums make one row of partials

struct Mask {
  DType dtype;    // f32 or bf16: of out and the gradients
  int64_t count;  // elements of each array: rows of `width`, the last one perhaps unfinished
  int64_t width;
  Activation activation;
  const void *grad_out, *out;  // out is not read without an activation
  void* grad;                  // the gradient before the activation; not written without one
  float* partials;             // [ceil(count / (kRows * width)), width]: its sums over runs of rows
};

}  // namespace dkpnet::pointwise
