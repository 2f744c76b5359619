// Entropic optimal transport between the cells of a density map and the heads of its image (DM-Count, Wang et al.,
// NeurIPS 2020): Sinkhorn's iterations over the few cells that a head reaches.
//
// K_nm = exp(-cost_nm / regularisation) is a product of one factor per axis, so a head needs two short vectors. The
// iterations add 1e-16 to every denominator, which bounds u and v by 1e16: entries of K below exp(-kReach) add less
// than 1e-28 to a sum that is at least 1e-16, and are left out. In pixels, with regularisation 10, that is beyond 32
// px.
#pragma once

#include <math.h>

#include "math/common.h"

namespace dkpnet::transport {

constexpr double kReach = 102.0;     // -ln K of the farthest cell of a window
constexpr double kGuard = 1e-16;     // added to K^T u, to K v, and to v in the potential
constexpr double kStop = 1e-9;       // the iterations stop at this squared error of the cells' marginal
constexpr int kLooked = 10;          // iterations between two checks of the error
constexpr double kMassGuard = 1e-6;  // added to a map's sum

struct Forward {
  const float* density;    // [batch, height, width], heads per cell, not negative
  const float* points;     // [num_points, 2], (x, y) in pixels, finite, image after image
  const int64_t* offsets;  // [batch + 1], image b owns points offsets[b] ... offsets[b + 1] - 1
  int64_t batch, num_points;
  int height, width;        // cells
  double stride;            // pixels per cell
  double scale_x, scale_y;  // factors of a distance in pixels, before it is squared
  double regularisation;
  int iterations;
  float* objective;   // [batch], sum over the cells of normalised density * potential; 0 without heads
  float* potential;   // [batch, height, width], regularisation * ln v; 0 without heads
  double* workspace;  // uninitialised: shape(args).size doubles on a GPU, as many floats on a CPU
};

// Sizes: of the padded grid, whose rows are whole groups of eight cells, and of a head's window.
struct Shape {
  int stride;         // of a row of the padded grid
  int rows, columns;  // of the window
  int64_t size;       // of the workspace: b, v and K^T u of each image, the window, its first cell and u of each head,
                      // the heads sorted by their window's first row
};

// Most cells along an axis whose centres a head reaches, before it is limited to the grid.
DKPNET_HD double reach(double regularisation, double scale, double stride) {
  return ceil(2.0 * sqrt(kReach * regularisation) / (scale * stride));
}

static inline Shape shape(const Forward& args) {
  const int padded = (args.width + 7) / 8 * 8;
  const double down = reach(args.regularisation, args.scale_y, args.stride);
  const double across = reach(args.regularisation, args.scale_x, args.stride);
  const int rows = down < args.height ? static_cast<int>(down) : args.height;
  const int columns = across < padded ? (static_cast<int>(across) + 7) / 8 * 8 : padded;
  return {
      padded, rows, columns,
      3 * args.batch * args.height * padded + args.num_points * (rows + columns + 3) + args.batch * (args.height + 1)};
}

// First cell of the window of `count` cells, within [0, cells - count], that holds all cells that the head reaches.
DKPNET_HD int window_begin(double coordinate, double regularisation, double scale, double stride, int count,
                           int cells) {
  const double radius = sqrt(kReach * regularisation) / scale;
  const double first = ceil((coordinate - radius) / stride - 0.5), last = cells - count;
  return first > 0.0 ? static_cast<int>(first < last ? first : last) : 0;
}

// One axis's factor of K; 0 where it would be negligible.
DKPNET_HD double factor(double coordinate, int cell, double regularisation, double scale, double stride) {
  const double distance = (coordinate - (cell + 0.5) * stride) * scale;
  const double exponent = distance * distance / regularisation;
  return exponent < 3 * kReach ? exp(-exponent) : 0.0;
}

}  // namespace dkpnet::transport

namespace dkpnet::cuda {  // see cuda/common.h
int transport_forward(const transport::Forward& args, void* stream);
}
