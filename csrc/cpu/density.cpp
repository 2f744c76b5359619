// Density targets on the CPU: images in parallel, each image's heads in order (the same bits in every run). A head adds
// the outer product of its shares along both axes to the few cells that its stamp touches.
#include "cpu/density.h"

#include <string.h>

#include "cpu/parallel.h"

namespace dkpnet::cpu::DKPNET_ISA {

using namespace dkpnet::density;

// Share of a head's mass in each cell that its stamp touches along one axis, into `shares`; returns those cells.
// `weights` is a table by distance: an axis then takes additions only, no exponentials.
static Span axis_shares(int center, int radius, int length, int stride, const float* weights, float* shares) {
  const Span stamp = stamp_span(center, radius, length);
  const Span cells{stamp.begin / stride, (stamp.end - 1) / stride + 1};
  float mass = 0.0f;
  for (int cell = cells.begin; cell < cells.end; ++cell) {
    const Span pixels = cell_span(stamp, cell, stride);
    float share = 0.0f;
    for (int i = pixels.begin; i < pixels.end; ++i) share += weights[i < center ? center - i : i - center];
    shares[cell - cells.begin] = share;
    mass += share;
  }
  for (int i = 0; i < cells.end - cells.begin; ++i) shares[i] /= mass;
  return cells;
}

static void one_image(const Forward& args, int64_t image, float* workspace) {
  const int rows = (args.height + args.stride - 1) / args.stride,
            columns = (args.width + args.stride - 1) / args.stride;
  const int64_t cells = int64_t(rows) * columns;
  const int limit = args.height > args.width ? args.height : args.width;
  float *sum = args.out + image * cells, *lost = workspace;
  float *by_row = lost + cells, *by_column = by_row + rows, *weights = by_column + columns;
  memset(sum, 0, cells * sizeof(float));
  memset(lost, 0, cells * sizeof(float));

  int known_radius = -1;
  float known_scale = 0.0f;
  for (int64_t head = args.offsets[image]; head < args.offsets[image + 1]; ++head) {
    int x, y;
    if (!pixel_of(args.points[2 * head], args.width, x) || !pixel_of(args.points[2 * head + 1], args.height, y))
      continue;
    const float sigma = args.sigmas ? args.sigmas[head] : args.sigma;
    const int radius = stamp_radius(sigma, args.truncate, limit);
    const float scale = stamp_scale(sigma, radius);
    if (radius != known_radius || scale != known_scale) {
      for (int distance = 0; distance <= radius; ++distance) weights[distance] = stamp_weight(scale, distance);
      known_radius = radius;
      known_scale = scale;
    }
    const Span down = axis_shares(y, radius, args.height, args.stride, weights, by_row);
    const Span across = axis_shares(x, radius, args.width, args.stride, weights, by_column);
    for (int row = down.begin; row < down.end; ++row) {
      const int64_t first = int64_t(row) * columns + across.begin;
      for (int i = 0; i < across.end - across.begin; ++i)
        add_compensated(sum[first + i], lost[first + i], by_row[row - down.begin] * by_column[i]);
    }
  }
}

static void forward(const Forward& args, int threads) {
  const int64_t each = workspace(args.height, args.width, args.stride);
  parallel_each(args.batch, 1, threads, [&](int64_t image) { one_image(args, image, args.workspace + image * each); });
}

const DensityKernels density{forward};

}  // namespace dkpnet::cpu::DKPNET_ISA
