// Bayesian loss on the CPU: the threads share the rows of a map, then the heads, then the rows again. No array of heads
// x cells is stored. A weight exp(-distance^2 / (2 sigma^2)), relative to the cell's largest, is a product of one
// factor per axis of the head and one of the cell. In rows with cells so far from all heads that these factors
// underflow it is the exponential of a difference. Arithmetic is in double, because squared distances nearly cancel. A
// head visits only the cells that can be within its reach. Every sum has one order, whatever the number of threads.
#include "cpu/bayesian.h"

#include "cpu/parallel.h"
#include "math/elementary.h"

namespace dkpnet::cpu::DKPNET_ISA {

using namespace bayesian;

constexpr int kGroup = 8;       // cells at a time
constexpr double kFar = 600.0;  // distance^2 / (2 sigma^2) from which factors are too small

struct Map {
  int padded;                   // cells of a row: whole groups
  double *shift, *scale;        // per cell: smallest squared distance, head or background; 1 / sum of the weights
  double *mass, *ground;        // per cell: density * scale, 0 in the padding; posterior of the background
  double* lift;                 // per cell: exp(shift / (2 sigma^2)); 0 where only the background weighs anything
  double *farthest, *products;  // per row: largest shift where heads weigh anything, -1 where none does; 1 if weights
                                // are products, else 0
  double *down, *across;        // per head: its factors, [heads, height] and [heads, padded]
  double *windows, *signs;      // per head: first row, last row + 1, first cell, last cell + 1; sign
};

// exp(-distance^2 / (2 sigma^2)) of the cells along an axis from a coordinate, by a recurrence outward from the
// nearest.
static void factors(double coordinate, double stride, double sigma, int cells, double* values) {
  constexpr double smallest = 1e-290;  // no product with anything would matter
  const double factor = -0.5 / (sigma * sigma), place = floor(coordinate / stride);
  const int start = place > 0.0 ? (place < cells ? static_cast<int>(place) : cells - 1) : 0;
  const double offset = (start + 0.5) * stride - coordinate, nearest = exp(offset * offset * factor);
  values[start] = nearest;
  for (int way = -1; way <= 1; way += 2) {
    double value = nearest, ratio = exp((2.0 * way * offset + stride) * stride * factor);
    const double change = exp(2.0 * stride * stride * factor);
    for (int cell = start + way; cell >= 0 && cell < cells; cell += way) {
      value *= ratio;
      ratio *= change;
      if (value < smallest) value = 0.0;
      values[cell] = value;
    }
  }
}

// A head's factors, and the cells that can be within its reach: those of a square, in whole groups.
static void prepare_head(const Forward& args, const Map& map, const float* point, int64_t head, double farthest) {
  factors(point[1], args.stride, args.sigma, args.height, map.down + head * args.height);
  factors(point[0], args.stride, args.sigma, map.padded, map.across + head * map.padded);
  const double radius = sqrt(farthest + kReach * 2.0 * args.sigma * args.sigma);
  double* window = map.windows + 4 * head;
  for (int axis = 0; axis < 2; ++axis) {
    const int cells = axis ? map.padded : args.height, group = axis ? kGroup : 1;
    const double first = floor((point[1 - axis] - radius) / args.stride - 0.5);
    const double last = ceil((point[1 - axis] + radius) / args.stride);
    const bool any = farthest >= 0.0 && first < cells && last >= 0.0;
    const int begin = first > 0.0 && any ? static_cast<int>(first) / group * group : 0;
    const int end = !any ? 0 : last < cells ? (static_cast<int>(last) + group) / group * group : cells;
    window[2 * axis] = begin, window[2 * axis + 1] = end < cells ? end : cells;
  }
}

// Calls body(first cell, weights) for the groups of cells of a row that a head can reach; weights are relative to the
// cell's largest.
template <typename Body>
static inline void visit(const Forward& args, const Map& map, int row, const float* point, int64_t head,
                         const Body& body) {
  const double* window = map.windows + 4 * head;
  if (row < window[0] || row >= window[1]) return;
  const int begin = static_cast<int>(window[2]), end = static_cast<int>(window[3]);
  double weights[kGroup];
  if (map.products[row] != 0.0) {
    const double down = map.down[head * args.height + row], *across = map.across + head * map.padded;
    const double* lift = map.lift + int64_t(row) * map.padded;
    for (int cell = begin; cell < end; cell += kGroup) {
      for (int k = 0; k < kGroup; ++k) weights[k] = down * across[cell + k] * lift[cell + k];
      body(cell, weights);
    }
    return;
  }
  const double reach = kReach * 2.0 * args.sigma * args.sigma, factor = -0.5 / (args.sigma * args.sigma);
  const double* shift = map.shift + int64_t(row) * map.padded;
  const double x = point[0], dy = (row + 0.5) * args.stride - point[1];
  for (int cell = begin; cell < end; cell += kGroup) {
    for (int k = 0; k < kGroup; ++k) {
      const double dx = (cell + k + 0.5) * args.stride - x, beyond = dx * dx + dy * dy - shift[cell + k];
      weights[k] = beyond < reach ? exp_of(static_cast<float>(beyond * factor)) : 0.0;
    }
    body(cell, weights);
  }
}

// Computes, for the cells of a row, what depends on the nearest head only: `shift`, `ground` (not yet normalised),
// `lift`, and the row's figures.
static void nearest_of_row(const Forward& args, const Map& map, int64_t image, int row) {
  const float *points = args.points + 2 * args.offsets[image], *end = args.points + 2 * args.offsets[image + 1];
  const int64_t first = int64_t(row) * map.padded;
  double *shift = map.shift + first, *ground = map.ground + first, *lift = map.lift + first;
  const double y = (row + 0.5) * args.stride, factor = -0.5 / (args.sigma * args.sigma);
  for (int cell = 0; cell < map.padded; ++cell) shift[cell] = HUGE_VAL;
  for (const float* point = points; point < end; point += 2) {
    const double x = point[0], dy = y - point[1];
    for (int cell = 0; cell < map.padded; ++cell) {
      const double dx = (cell + 0.5) * args.stride - x, distance = dx * dx + dy * dy;
      shift[cell] = distance < shift[cell] ? distance : shift[cell];
    }
  }
  map.farthest[row] = -1.0, map.products[row] = 1.0;
  for (int cell = 0; cell < map.padded; ++cell) {
    const double nearest = shift[cell];
    const double behind = background_distance(nearest, args.ratio * args.sides[image], args.form);
    shift[cell] = behind < nearest ? behind : nearest;
    ground[cell] = exp((behind - shift[cell]) * factor);
    lift[cell] = 0.0;
    if (!((shift[cell] - nearest) * factor < kReach)) continue;  // no head weighs anything
    map.farthest[row] = shift[cell] > map.farthest[row] ? shift[cell] : map.farthest[row];
    if (nearest * -factor < kFar)
      lift[cell] = exp(-shift[cell] * factor);
    else
      map.products[row] = 0.0;
  }
}

// The sums of all weights: `scale`, `mass`, and `ground` as a posterior.
static void normalise_row(const Forward& args, const Map& map, int64_t image, int row) {
  const float* points = args.points + 2 * args.offsets[image];
  const int64_t first = int64_t(row) * map.padded;
  double *scale = map.scale + first, *mass = map.mass + first, *ground = map.ground + first;
  for (int cell = 0; cell < map.padded; ++cell) scale[cell] = ground[cell];
  for (int64_t head = 0; head < args.offsets[image + 1] - args.offsets[image]; ++head)
    visit(args, map, row, points + 2 * head, head, [scale](int cell, const double* weights) {
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
static double expected(const Forward& args, const Map& map, const float* point, int64_t head) {
  double sums[kGroup] = {};
  for (int row = 0; row < args.height; ++row) {
    const double* mass = map.mass + int64_t(row) * map.padded;
    visit(args, map, row, point, head, [mass, &sums](int cell, const double* weights) {
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
    visit(args, map, row, points + 2 * head, head, [posterior, sign](int cell, const double* weights) {
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
  const int64_t rows_each = 1 + 200000 / (heads * map.padded + 1);  // a thread's start is worth some such pairs
  const float* points = args.points + 2 * first;
  parallel_each(args.height, rows_each, threads,
                [&](int64_t row) { nearest_of_row(args, map, image, static_cast<int>(row)); });
  double farthest = -1.0;
  for (int row = 0; row < args.height; ++row) farthest = map.farthest[row] > farthest ? map.farthest[row] : farthest;
  parallel_each(heads, 64, threads, [&](int64_t head) { prepare_head(args, map, points + 2 * head, head, farthest); });
  parallel_each(args.height, rows_each, threads,
                [&](int64_t row) { normalise_row(args, map, image, static_cast<int>(row)); });
  parallel_each(heads, 64, threads,
                [&](int64_t head) { map.signs[head] = expected(args, map, points + 2 * head, head); });
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
  parallel_each(args.height, rows_each, threads,
                [&](int64_t row) { slope_row(args, map, image, static_cast<int>(row), sign_of(ground)); });
}

static void forward(const Forward& args, int threads) {
  const int padded = (args.width + kGroup - 1) / kGroup * kGroup;
  double* next = args.workspace;
  const auto take = [&next](int64_t count) {
    double* taken = next;
    next += count;
    return taken;
  };
  const int64_t cells = int64_t(args.height) * padded, heads = args.num_points;
  Map map{};
  map.padded = padded;
  map.shift = take(cells), map.scale = take(cells), map.mass = take(cells), map.ground = take(cells);
  map.lift = take(cells), map.farthest = take(args.height), map.products = take(args.height);
  map.down = take(heads * args.height), map.across = take(heads * padded);
  map.windows = take(4 * heads), map.signs = take(heads);
  for (int64_t image = 0; image < args.batch; ++image) {
    if (args.offsets[image] == args.offsets[image + 1])
      without_heads(args, image);
    else
      one_image(args, map, image, threads);
  }
}

const BayesianKernels bayesian_kernels{forward};

}  // namespace dkpnet::cpu::DKPNET_ISA
