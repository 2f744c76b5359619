// Bayesian loss on the CPU: the threads share the rows of a map, then the heads, then the rows again. No array of heads
// x cells is stored. Distances are in double, because their squares nearly cancel. A head visits only the cells that
// can be within its reach. Every sum has one order, whatever the number of threads.
#include "cpu/bayesian.h"

#include "cpu/parallel.h"
#include "math/elementary.h"

namespace dkpnet::cpu::DKPNET_ISA {

using namespace bayesian;

constexpr int kGroup = 8;  // cells at a time

struct Map {
  int padded;             // cells of a row: whole groups
  double *shift, *scale;  // per cell: smallest squared distance, head or background; 1 / sum of the weights
  double *mass, *ground;  // per cell: density * scale, 0 in the padding; posterior of the background
  double* farthest;       // per row: largest shift
  double* signs;          // per head of the image
};

// Calls body(first cell, weights) for the groups of cells of a row that a head can reach; weights are relative to the
// cell's largest.
template <typename Body>
static inline void visit(const Forward& args, const Map& map, int row, const float* point, const Body& body) {
  const double reach = kReach * 2.0 * args.sigma * args.sigma, factor = -0.5 / (args.sigma * args.sigma);
  const double x = point[0], dy = (row + 0.5) * args.stride - point[1];
  const double left = map.farthest[row] + reach - dy * dy;
  if (!(left > 0.0)) return;
  const double radius = sqrt(left), first = floor((x - radius) / args.stride - 0.5),
               last = ceil((x + radius) / args.stride);
  if (!(last >= 0.0 && first < map.padded)) return;
  const int begin = first > 0.0 ? static_cast<int>(first) / kGroup * kGroup : 0;
  const int end = last < map.padded ? static_cast<int>(last) + 1 : map.padded;
  const double* shift = map.shift + int64_t(row) * map.padded;
  for (int cell = begin; cell < end && cell < map.padded; cell += kGroup) {
    double beyond[kGroup];
    bool any = false;
    for (int k = 0; k < kGroup; ++k) {
      const double dx = (cell + k + 0.5) * args.stride - x;
      beyond[k] = dx * dx + dy * dy - shift[cell + k];
      any |= beyond[k] < reach;
    }
    if (!any) continue;
    float weights[kGroup];
    for (int k = 0; k < kGroup; ++k) weights[k] = exp_of(static_cast<float>(beyond[k] * factor));
    body(cell, weights);
  }
}

// Computes, for the cells of a row, everything in `map` but `signs`.
static void normalise_row(const Forward& args, const Map& map, int64_t image, int row) {
  const float *points = args.points + 2 * args.offsets[image], *end = args.points + 2 * args.offsets[image + 1];
  const int64_t first = int64_t(row) * map.padded;
  double *shift = map.shift + first, *scale = map.scale + first, *mass = map.mass + first, *ground = map.ground + first;
  const double y = (row + 0.5) * args.stride, factor = -0.5 / (args.sigma * args.sigma);
  for (int cell = 0; cell < map.padded; ++cell) shift[cell] = HUGE_VAL;
  for (const float* point = points; point < end; point += 2) {
    const double x = point[0], dy = y - point[1];
    for (int cell = 0; cell < map.padded; ++cell) {
      const double dx = (cell + 0.5) * args.stride - x, distance = dx * dx + dy * dy;
      shift[cell] = distance < shift[cell] ? distance : shift[cell];
    }
  }
  double farthest = 0.0;
  for (int cell = 0; cell < map.padded; ++cell) {
    const double behind = background_distance(shift[cell], args.ratio * args.sides[image], args.form);
    shift[cell] = behind < shift[cell] ? behind : shift[cell];
    ground[cell] = exp((behind - shift[cell]) * factor);
    scale[cell] = ground[cell];  // becomes the sum of all weights
    farthest = shift[cell] > farthest ? shift[cell] : farthest;
  }
  map.farthest[row] = farthest;
  for (const float* point = points; point < end; point += 2)
    visit(args, map, row, point, [scale](int cell, const float* weights) {
      for (int k = 0; k < kGroup; ++k) scale[cell + k] += weights[k];
    });
  const float* density = args.density + (image * args.height + row) * args.width;
  for (int cell = 0; cell < map.padded; ++cell) {
    scale[cell] = 1.0 / scale[cell];
    ground[cell] *= scale[cell];
    mass[cell] = cell < args.width ? density[cell] * scale[cell] : 0.0;
  }
}

// Expected count of a head.
static double expected(const Forward& args, const Map& map, const float* point) {
  double sums[kGroup] = {};
  for (int row = 0; row < args.height; ++row) {
    const double* mass = map.mass + int64_t(row) * map.padded;
    visit(args, map, row, point, [mass, &sums](int cell, const float* weights) {
      for (int k = 0; k < kGroup; ++k) sums[k] += mass[cell + k] * weights[k];
    });
  }
  return ((sums[0] + sums[4]) + (sums[2] + sums[6])) + ((sums[1] + sums[5]) + (sums[3] + sums[7]));
}

// The loss's derivative in a row, whose `mass` is no longer needed.
static void slope_row(const Forward& args, const Map& map, int64_t image, int row, double ground_sign) {
  const float* points = args.points + 2 * args.offsets[image];
  const int64_t first = int64_t(row) * map.padded;
  double* posterior = map.mass + first;
  for (int cell = 0; cell < map.padded; ++cell) posterior[cell] = 0.0;
  for (int64_t head = 0; head < args.offsets[image + 1] - args.offsets[image]; ++head) {
    const double sign = map.signs[head];
    visit(args, map, row, points + 2 * head, [posterior, sign](int cell, const float* weights) {
      for (int k = 0; k < kGroup; ++k) posterior[cell + k] += sign * weights[k];
    });
  }
  float* slope = args.slope + (image * args.height + row) * args.width;
  for (int cell = 0; cell < args.width; ++cell)
    slope[cell] =
        static_cast<float>(posterior[cell] * map.scale[first + cell] + ground_sign * map.ground[first + cell]);
}

static void without_heads(const Forward& args, int64_t image) {
  const int64_t cells = int64_t(args.height) * args.width;
  double count = 0.0;
  for (int64_t i = 0; i < cells; ++i) count += args.density[image * cells + i];
  for (int64_t i = 0; i < cells; ++i) args.slope[image * cells + i] = static_cast<float>(sign_of(count));
  args.loss[image] = static_cast<float>(fabs(count));
}

static void one_image(const Forward& args, const Map& map, int64_t image, int threads) {
  const int64_t first = args.offsets[image], heads = args.offsets[image + 1] - first;
  const int64_t rows_each = 1 + 200000 / (heads * map.padded + 1);  // so many pairs are worth a thread's start
  parallel_for(args.height, rows_each, threads, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) normalise_row(args, map, image, static_cast<int>(row));
  });
  parallel_for(heads, 64, threads, [&](int64_t begin, int64_t end) {
    for (int64_t head = begin; head < end; ++head)
      map.signs[head] = expected(args, map, args.points + 2 * (first + head));
  });
  double loss = 0.0, ground = 0.0;
  for (int64_t head = 0; head < heads; ++head) {
    const double excess = map.signs[head] - (args.targets ? args.targets[first + head] : 1.0f);
    loss += fabs(excess);
    map.signs[head] = sign_of(excess);
  }
  const float* density = args.density + image * args.height * args.width;
  for (int row = 0; row < args.height; ++row)
    for (int cell = 0; cell < args.width; ++cell)
      ground += density[int64_t(row) * args.width + cell] * map.ground[int64_t(row) * map.padded + cell];
  args.loss[image] = static_cast<float>(loss + fabs(ground));
  parallel_for(args.height, rows_each, threads, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) slope_row(args, map, image, static_cast<int>(row), sign_of(ground));
  });
}

static void forward(const Forward& args, int threads) {
  double* workspace = args.workspace;
  const int padded = (args.width + kGroup - 1) / kGroup * kGroup;
  const int64_t cells = int64_t(args.height) * padded;
  const Map map{padded,
                workspace,
                workspace + cells,
                workspace + 2 * cells,
                workspace + 3 * cells,
                workspace + 4 * cells,
                workspace + 4 * cells + args.height};
  for (int64_t image = 0; image < args.batch; ++image) {
    if (args.offsets[image] == args.offsets[image + 1])
      without_heads(args, image);
    else
      one_image(args, map, image, threads);
  }
}

const BayesianKernels bayesian_kernels{forward};

}  // namespace dkpnet::cpu::DKPNET_ISA
