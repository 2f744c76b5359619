// Pointwise (1x1) convolution for inference, channels last, with what a neck does around it:
//
//   out = act(weight * in + bias [+ coarse, each value for 2 x 2 pixels])
#pragma once

#include "math/activation.h"

namespace dkpnet::projection {

constexpr int kOutUnit = 8;  // the weights' channels are a multiple of it: zeros fill them up

struct Forward {
  DType dtype, out_dtype;  // f32 or bf16: of in; of coarse and out
  bool pairs;              // the weights are pairs of bf16 for a processor's bf16 dot products; else they are floats
  int64_t batch;
  int height, width, in_channels, out_channels;
  Activation activation;
  const void* in;      // [batch, height, width, in_channels]
  const void* weight;  // [in_channels / pair, out_channels rounded up, pair], pair = 2 with pairs, else 1
  const float* bias;   // [out_channels rounded up]
  const void* coarse;  // [batch, height / 2, width / 2, out_channels] or null
  void* out;           // [batch, height, width, out_channels]
};

}  // namespace dkpnet::projection
