// Inverted residual (Sandler et al., CVPR 2018) for inference, channels last:
//
//   out = project(act(depthwise(act(expand(in))))) [+ in]
//
// expand: a dense convolution, 1x1 in the block itself, a larger one where the block is joined with the network's first
// convolution; or absent. depthwise: kernel 3 or 5, stride 1 or 2. project: 1x1. Each has a bias.
#pragma once

#include "math/activation.h"

namespace dkpnet::inverted_residual {

constexpr int kUnit = 16;    // `channels` is a multiple of it: zero weights fill it up
constexpr int kOutUnit = 8;  // so is the width of `project`

// Size, padding before the first row and column, and step of a convolution's window.
struct Window {
  int kernel, stride, top, left;
};

struct Forward {
  DType dtype;  // f32 or bf16: of in and out
  // The weights of expand and project are pairs of bf16 for a processor's bf16 dot products; else they are floats.
  bool pairs;
  bool planar;    // in is [batch, in_channels, height, width]; only with expand and without residual
  bool residual;  // in has the shape of out and is added to it
  int64_t batch;
  int height, width, in_channels;       // of in
  int mid_height, mid_width, channels;  // of the expanded array, which is never stored as a whole
  int out_height, out_width, out_channels;
  Window expand, depthwise;  // expand.kernel is 0 where there is none
  Activation activation;
  const void* in;  // [batch, height, width, in_channels]
  // Null, or in is uint8: what each of its values stands for, [in_channels, 256]; bf16 with pairs, else float. Only
  // with expand and without residual.
  const void* table;
  const void*
      expand_weight;         // [kernel, ceil(kernel * in_channels / pair), channels, pair], pair = 2 with pairs, else 1
  const float* expand_bias;  // [channels]
  const float* taps;         // [kernel * kernel, channels]
  const float* taps_bias;    // [channels]
  const void* project_weight;  // [channels / pair, out_channels rounded up, pair]
  const float* project_bias;   // [out_channels rounded up]
  void* out;                   // [batch, out_height, out_width, out_channels]
  float* scratch;              // [threads, scratch_size(args)]
};

}  // namespace dkpnet::inverted_residual
