// Optimal transport on the CPU: images in parallel. An iteration is one pass over the cells (v) and two over the heads:
// one gathers K v of a head's window, the other adds the new u to K^T u. At stride 8 a window has 8 x 8 cells, one
// vector a row. All arithmetic is in double, since u and v span 32 orders of magnitude. Heads are taken by their
// window's first row, those of one row in their order, so that few rows are in use at a time: the same bits every run.
#include "cpu/transport.h"

#include "cpu/parallel.h"

namespace dkpnet::cpu::DKPNET_ISA {

using namespace transport;

// Eight doubles, on every instruction set: the order of a sum does not depend on it.
typedef double Eight __attribute__((vector_size(64)));
typedef double LooseEight __attribute__((vector_size(64), aligned(8), may_alias));

struct Grid {
  double *b, *v, *ktu;    // normalised density, v and K^T u, [height, stride]
  double *down, *across;  // factors of K, [heads, rows] and [heads, columns]
  double* windows;        // first cell of each head's window: a whole number
  double *u, *starts;     // of each head; of each row, the first head whose window begins there
};

// K v of a head.
static inline double gathered(const double* v, const double* down, const double* across, const Shape& shape) {
  Eight total = {};
  for (int column = 0; column < shape.columns; column += 8) {
    Eight even = {}, odd = {};
    const double* cell = v + column;
    int row = 0;
    for (; row + 1 < shape.rows; row += 2, cell += 2 * shape.stride) {
      even += down[row] * *reinterpret_cast<const LooseEight*>(cell);
      odd += down[row + 1] * *reinterpret_cast<const LooseEight*>(cell + shape.stride);
    }
    if (row < shape.rows) even += down[row] * *reinterpret_cast<const LooseEight*>(cell);
    total += (even + odd) * *reinterpret_cast<const LooseEight*>(across + column);
  }
  return ((total[0] + total[4]) + (total[2] + total[6])) + ((total[1] + total[5]) + (total[3] + total[7]));
}

// Adds a head's share to K^T u.
static inline void scatter(double u, double* ktu, const double* down, const double* across, const Shape& shape) {
  for (int column = 0; column < shape.columns; column += 8) {
    const Eight share = u * *reinterpret_cast<const LooseEight*>(across + column);
    double* cell = ktu + column;
    for (int row = 0; row < shape.rows; ++row, cell += shape.stride)
      *reinterpret_cast<LooseEight*>(cell) += down[row] * share;
  }
}

// `shape` by value, so that the compiler knows that no store changes it; constants where it is the usual one.
static void half_iterations(const Grid& grid, int64_t heads, Shape shape) {
  const double a = 1.0 / heads;
  for (int64_t head = 0; head < heads; ++head) {
    const double *down = grid.down + head * shape.rows, *across = grid.across + head * shape.columns;
    const int64_t window = static_cast<int64_t>(grid.windows[head]);
    grid.u[head] = a / (gathered(grid.v + window, down, across, shape) + kGuard);
  }
  for (int64_t head = 0; head < heads; ++head) {
    const double *down = grid.down + head * shape.rows, *across = grid.across + head * shape.columns;
    scatter(grid.u[head], grid.ktu + static_cast<int64_t>(grid.windows[head]), down, across, shape);
  }
}

static void prepare(const Forward& args, const Shape& shape, int64_t image, const Grid& grid) {
  const int64_t first = args.offsets[image], heads = args.offsets[image + 1] - first;
  const float* density = args.density + image * args.height * args.width;
  double mass = 0.0;
  for (int64_t i = 0; i < int64_t(args.height) * args.width; ++i) mass += density[i];
  for (int row = 0; row < args.height; ++row)
    for (int column = 0; column < shape.stride; ++column) {
      const int64_t cell = int64_t(row) * shape.stride + column;
      const double value = column < args.width ? density[int64_t(row) * args.width + column] : 0.0;
      grid.b[cell] = value / (mass + kMassGuard);
      grid.ktu[cell] = 0.0;
    }
  const auto first_row = [&](int64_t point) {
    return window_begin(args.points[2 * point + 1], args.regularisation, args.scale_y, args.stride, shape.rows,
                        args.height);
  };
  for (int row = 0; row <= args.height; ++row) grid.starts[row] = 0.0;
  for (int64_t point = first; point < first + heads; ++point) ++grid.starts[first_row(point) + 1];
  for (int row = 1; row <= args.height; ++row) grid.starts[row] += grid.starts[row - 1];
  for (int64_t point = first; point < first + heads; ++point) {
    const double x = args.points[2 * point], y = args.points[2 * point + 1];
    const int top = first_row(point);
    const int64_t head = static_cast<int64_t>(grid.starts[top]++);
    const int left = window_begin(x, args.regularisation, args.scale_x, args.stride, shape.columns, shape.stride);
    double *down = grid.down + head * shape.rows, *across = grid.across + head * shape.columns;
    for (int row = 0; row < shape.rows; ++row)
      down[row] = factor(y, top + row, args.regularisation, args.scale_y, args.stride);
    for (int column = 0; column < shape.columns; ++column)
      across[column] =
          left + column < args.width ? factor(x, left + column, args.regularisation, args.scale_x, args.stride) : 0.0;
    const int64_t window = int64_t(top) * shape.stride + left;
    grid.windows[head] = static_cast<double>(window);
    scatter(1.0 / heads, grid.ktu + window, down, across, shape);  // of the first u
  }
}

static void iterate(const Forward& args, const Shape& shape, int64_t heads, const Grid& grid) {
  const int64_t cells = int64_t(args.height) * shape.stride;
  for (int iteration = 1; iteration <= args.iterations; ++iteration) {
    for (int64_t i = 0; i < cells; ++i) {
      grid.v[i] = grid.b[i] / (grid.ktu[i] + kGuard);
      grid.ktu[i] = 0.0;
    }
    if (shape.rows == 8 && shape.columns == 8)
      half_iterations(grid, heads, {shape.stride, 8, 8, 0});
    else
      half_iterations(grid, heads, shape);
    if (iteration % kLooked) continue;
    double error = 0.0;
    for (int64_t i = 0; i < cells; ++i) {
      const double difference = grid.b[i] - grid.ktu[i] * grid.v[i];
      error += difference * difference;
    }
    if (error <= kStop) break;
  }
}

static void one_image(const Forward& args, const Shape& shape, int64_t image, const Grid& grid) {
  const int64_t heads = args.offsets[image + 1] - args.offsets[image];
  float* potential = args.potential + image * args.height * args.width;
  double objective = 0.0;
  if (heads == 0) {
    for (int64_t i = 0; i < int64_t(args.height) * args.width; ++i) potential[i] = 0.0f;
  } else {
    prepare(args, shape, image, grid);
    iterate(args, shape, heads, grid);
    for (int row = 0; row < args.height; ++row)
      for (int column = 0; column < args.width; ++column) {
        const int64_t cell = int64_t(row) * shape.stride + column;
        const double beta = args.regularisation * log(grid.v[cell] + kGuard);
        potential[int64_t(row) * args.width + column] = static_cast<float>(beta);
        objective += grid.b[cell] * beta;
      }
  }
  args.objective[image] = static_cast<float>(objective);
}

static void forward(const Forward& args, int threads) {
  const Shape shape = transport::shape(args);
  const int64_t cells = int64_t(args.height) * shape.stride;
  double* down = args.workspace + 3 * args.batch * cells;
  double* across = down + args.num_points * shape.rows;
  double* windows = across + args.num_points * shape.columns;
  double* starts = windows + 2 * args.num_points;
  parallel_for(args.batch, 1, threads, [&](int64_t begin, int64_t end) {
    for (int64_t image = begin; image < end; ++image) {
      double* own = args.workspace + 3 * image * cells;
      const int64_t first = args.offsets[image];
      one_image(args, shape, image,
                {own, own + cells, own + 2 * cells, down + first * shape.rows, across + first * shape.columns,
                 windows + first, windows + args.num_points + first, starts + image * (args.height + 1)});
    }
  });
}

const TransportKernels transport_kernels{forward};

}  // namespace dkpnet::cpu::DKPNET_ISA
