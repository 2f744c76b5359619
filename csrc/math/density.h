// One head's stamp in a density target: a Gaussian on the pixels around the head, cut at the radius, renormalised over
// the pixels that lie inside the image.
//
// The stamp is separable and so is the sum-pool to the output stride: a head adds rows[i] * columns[j] to cell (i, j),
// where both vectors sum to 1. So the functions here work on one axis, and no array at pixel resolution is stored.
#pragma once

#include <math.h>

#include "math/common.h"

namespace dkpnet::density {

// Arguments of a density kernel. Sides and stride are at most 2^24, so that a pixel index is exact in float.
struct Forward {
  const float* points;     // [num_points, 2], (x, y) in pixels, image after image
  const int64_t* offsets;  // [batch + 1], image b owns points offsets[b] ... offsets[b + 1] - 1
  const float* sigmas;     // [num_points], or null: `sigma` for all
  float sigma, truncate;
  int64_t batch, num_points;
  int height, width, stride;
  float* out;        // [batch, ceil(height / stride), ceil(width / stride)]
  float* workspace;  // CPU: [batch, workspace(height, width, stride)], uninitialised; CUDA: unused
};

// Floats of workspace per image: the rounding error of every cell, a head's shares along both axes, the weight table.
DKPNET_HD int64_t workspace(int height, int width, int stride) {
  const int64_t rows = (height + stride - 1) / stride, columns = (width + stride - 1) / stride;
  return rows * columns + rows + columns + (height > width ? height : width) + 1;
}

// Pixel index of a coordinate, floor(x); false for what lies outside [0, length), for NaN and for infinities.
DKPNET_HD bool pixel_of(float coordinate, int length, int& pixel) {
  if (!(coordinate >= 0.0f && coordinate < static_cast<float>(length))) return false;
  pixel = static_cast<int>(coordinate);
  return true;
}

// floor(truncate * sigma + 0.5), 7 for sigma 4 and truncate 1.75: the field's 15x15. The product of two float32 is
// exact in double, so every backend gets the same radius. A sigma of 0 (or below, or NaN) leaves the mass on one
// pixel; `limit`, the longer side of the image, keeps an infinite sigma meaningful (a flat stamp over all of it).
DKPNET_HD int stamp_radius(float sigma, float truncate, int limit) {
  const double radius = static_cast<double>(truncate) * static_cast<double>(sigma) + 0.5;
  if (!(radius >= 1.0)) return 0;
  return radius < limit ? static_cast<int>(radius) : limit;
}

// 1 / sigma, or 0 where the stamp is a single pixel: its weight is then exp(0) whatever sigma is.
DKPNET_HD float stamp_scale(float sigma, int radius) { return radius > 0 ? 1.0f / sigma : 0.0f; }

// Unnormalised weight of a pixel, by its distance from the head in pixels.
DKPNET_HD float stamp_weight(float scale, int distance) {
  const float t = static_cast<float>(distance) * scale;
  return expf(-0.5f * t * t);
}

// The pixels of [0, length) within `radius` of `center`.
DKPNET_HD Span stamp_span(int center, int radius, int length) {
  return {center > radius ? center - radius : 0, center < length - radius ? center + radius + 1 : length};
}

// The part of a stamp's span that one output cell of `stride` pixels pools; begin >= end where they do not meet.
DKPNET_HD Span cell_span(Span stamp, int cell, int stride) {
  const int begin = cell * stride, end = begin + stride;
  return {begin > stamp.begin ? begin : stamp.begin, end < stamp.end ? end : stamp.end};
}

// Sum of the weights of every `step`-th pixel of a span; on the GPU the lanes of a warp share them. `scale` is taken by
// reference because nvcc unrolls the loop otherwise, which makes the kernel a quarter longer.
DKPNET_HD float span_mass(Span span, int step, int center, const float& scale) {
  float mass = 0.0f;
  for (int pixel = span.begin; pixel < span.end; pixel += step) mass += stamp_weight(scale, pixel - center);
  return mass;
}

// Adds `value` to `sum` and keeps the rounding error in `lost` (Kahan summation): thousands of heads may share a cell,
// and equal addends round in the same direction.
DKPNET_HD void add_compensated(float& sum, float& lost, float value) {
  const float corrected = value - lost;
  const float next = sum + corrected;
  lost = (next - sum) - corrected;
  sum = next;
}

}  // namespace dkpnet::density

namespace dkpnet::cuda {  // see cuda/common.h
int density_forward(const density::Forward& args, void* stream);
}
