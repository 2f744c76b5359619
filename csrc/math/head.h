// The tail of the attended density head: its arguments, and the arithmetic that the CPU and the GPU share.
//
//   hidden1 = ReLU( sum_j upsample(products[j]) + fine_weight^T fine + bias )      [hidden1 channels]
//   hidden2 = ReLU( weight2 hidden1 + bias2 )                                      [hidden2 channels]
//   density = weight3 hidden2 + bias3
#pragma once

#include "math/common.h"

namespace dkpnet::head {

// An output position reads (1 - weight) * source[low] + weight * source[high].
struct Tap {
  int low, high;
  float weight;
};

// Bilinear resampling along one axis, align_corners=False: source = (position + 1/2) * in / out - 1/2, not below 0.
// In integers, so that the split into low and weight is exact: sizes up to 32767 keep 2 * in * out below 2^31.
DKPNET_HD Tap bilinear_tap(int position, int in, int out) {
  const uint32_t numerator = (2u * uint32_t(position) + 1u) * uint32_t(in);
  if (numerator <= uint32_t(out)) return Tap{0, in > 1 ? 1 : 0, 0.0f};
  const uint32_t step = 2u * uint32_t(out), shifted = numerator - uint32_t(out);
  const int low = int(shifted / step);
  return Tap{low, low + 1 < in ? low + 1 : in - 1, float(shifted - uint32_t(low) * step) / float(step)};
}

// The output positions that read source position `source` with a weight above 0, or are clamped to it.
DKPNET_HD Span bilinear_reach(int source, int in, int out) {
  // source - 1 < (position + 1/2) * in / out - 1/2 < source + 1; the first and last source also take what is clamped.
  const uint32_t first = uint32_t(out) * uint32_t(2 * source - 1), last = uint32_t(out) * uint32_t(2 * source + 3);
  const uint32_t size = uint32_t(in);
  return Span{
      source == 0 || first < size ? 0 : int((first - size) / (2 * size)) + 1,
      source == in - 1 || (last + size - 1) / (2 * size) >= uint32_t(out) ? out : int((last + size - 1) / (2 * size))};
}

// The weight with which output `position` reads `source`: that of bilinear_tap, without an integer division.
DKPNET_HD float bilinear_weight(int position, int source, int in, int out) {
  const int step = 2 * out, numerator = (2 * position + 1) * in;
  const int offset = (numerator <= out ? 0 : numerator - out) - source * step;  // in units of 1 / step
  if (offset >= 0 && source == in - 1) return 1.0f;
  if (offset >= 0) return offset < step ? 1.0f - float(offset) / float(step) : 0.0f;
  return -offset < step ? float(offset + step) / float(step) : 0.0f;
}

DKPNET_HD float relu(float x) { return x < 0.0f ? 0.0f : x; }  // keeps NaN
DKPNET_HD float relu_gradient(float grad, float output) { return output <= 0.0f ? 0.0f : grad; }

constexpr int kMaxProducts = 8;
constexpr int kPart = 512;  // pixels whose parameter gradients make one partial sum

// A coarser branch after its 1x1 product, [B, height, width, hidden1], contiguous.
struct Product {
  const void* data;
  int height, width;
};

// Pixels are numbered row by row, p = y * width + x. `dtype` is that of fine, fine_weight, the products, the density
// and grad_hidden; parameters and their gradients are float32.
struct Problem {
  DType dtype;
  int64_t batch;
  int height, width, channels, hidden1, hidden2;
  const void* fine;  // the branch at the output's size, element (b, c, p) at the strides below; channels == 0: none
  int64_t fine_batch, fine_channel, fine_pixel;
  const void* fine_weight;  // [B, channels, hidden1], images fine_weight_batch elements apart
  int64_t fine_weight_batch;
  int count;  // of products
  Product products[kMaxProducts];
  const float* bias;     // [B, hidden1]
  const float* weight2;  // [hidden2, hidden1]
  const float* bias2;    // [hidden2]
  const float* weight3;  // [hidden2]
  const float* bias3;    // [1]
};
struct Forward : Problem {
  void* density;  // [B, height, width]
};
struct Backward : Problem {
  const void* grad_density;  // [B, height, width]
  void* grad_hidden;         // [B, height, width, hidden1], the gradient at hidden1 before its ReLU
  float* partials;           // [B, ceil(height * width / kPart), gradient_size], written, not added to
};

// The adjoint of bilinear upsampling from rows x columns to height x width.
struct Downsample {
  DType dtype;
  int64_t batch;
  int channels, height, width, rows, columns;  // CUDA: channels a multiple of 8
  const void* grad;                            // [B, height, width, channels]
  void* out;                                   // [B, rows, columns, channels]
};

// The parameters' gradients come as partial sums over runs of kPart pixels, [B, ceil(height * width / kPart),
// gradient_size], to be added in order: the same bits whatever the number of threads. Layout of one part:
// weight2 [hidden2 * hidden1] | bias2 [hidden2] | weight3 [hidden2] | bias [hidden1] | bias3 [1]
DKPNET_HD int gradient_size(int hidden1, int hidden2) { return hidden2 * hidden1 + 2 * hidden2 + hidden1 + 1; }

}  // namespace dkpnet::head

namespace dkpnet::cuda {  // see cuda/common.h
int head_forward(const head::Forward& args, void* stream);
int head_backward(const head::Backward& args, void* stream);
int head_downsample(const head::Downsample& args, void* stream);
}  // namespace dkpnet::cuda
