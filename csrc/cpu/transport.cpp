// Optimal transport on the CPU: images in parallel. An iteration is one pass over the cells (v) and two over the heads:
// one gathers K v of a head's window, the other adds the new u to K^T u. At stride 8 a window has 8 x 8 cells, one
// vector a row. Heads are taken by their window's first row, those of one row in their order, so that few rows are in
// use at a time: the same bits every run.
//
// The iterations are float32: nothing is subtracted, so every rounding error stays a relative one. u and K^T u are kept
// times the number of heads N, so that the heads' share 1 / N, whose rounding error would add up over the iterations,
// is exactly 1. u and v span 32 orders of magnitude, their products with K more: what falls below 1e-38 is taken as 0,
// beside the 1e-16 that is added to every sum.
#include "cpu/transport.h"

#if defined(__SSE__)
#include <xmmintrin.h>
#endif

#include "cpu/parallel.h"

namespace dkpnet::cpu::DKPNET_ISA {

using namespace transport;

// Eight floats, on every instruction set: the order of a sum does not depend on it.
typedef float Eight __attribute__((vector_size(32)));
typedef float LooseEight __attribute__((vector_size(32), aligned(4), may_alias));

// Within its life the thread takes numbers below 1e-38 as 0; denormal ones take many times as long on some processors.
struct TinyIsZero {
#if defined(__SSE__)
  const unsigned before = _mm_getcsr();
  TinyIsZero() { _mm_setcsr(before | 0x8040); }
  ~TinyIsZero() { _mm_setcsr(before); }
#endif
};

struct Grid {
  float *b, *v, *ktu;    // N times the normalised density, v, and N times K^T u, [height, stride]
  float *down, *across;  // factors of K, [heads, rows] and [heads, columns]
  float* u;              // N times u, [heads]
  int32_t* windows;      // first cell of each head's window
  int32_t* starts;       // of each row, the first head whose window begins there
};

static inline const LooseEight& eight(const float* from) { return *reinterpret_cast<const LooseEight*>(from); }

// K v of a head.
static inline float gathered(const float* v, const float* down, const float* across, const Shape& shape) {
  Eight total = {};
  for (int column = 0; column < shape.columns; column += 8) {
    Eight even = {}, odd = {};
#pragma GCC unroll 4
    for (int row = 0; row + 1 < shape.rows; row += 2) {
      even += down[row] * eight(v + int64_t(row) * shape.stride + column);
      odd += down[row + 1] * eight(v + int64_t(row + 1) * shape.stride + column);
    }
    if (shape.rows % 2) even += down[shape.rows - 1] * eight(v + int64_t(shape.rows - 1) * shape.stride + column);
    total += (even + odd) * eight(across + column);
  }
  return ((total[0] + total[4]) + (total[2] + total[6])) + ((total[1] + total[5]) + (total[3] + total[7]));
}

// Adds a head's share to K^T u.
static inline void scatter(float u, float* ktu, const float* down, const float* across, const Shape& shape) {
  for (int column = 0; column < shape.columns; column += 8) {
    const Eight share = u * eight(across + column);
#pragma GCC unroll 8
    for (int row = 0; row < shape.rows; ++row)
      *reinterpret_cast<LooseEight*>(ktu + int64_t(row) * shape.stride + column) += down[row] * share;
  }
}

// `shape` by value, so that the compiler knows that no store changes it; constants where it is the usual one.
static inline void half_iterations(const Grid& grid, int64_t heads, Shape shape) {
  for (int64_t head = 0; head < heads; ++head) {
    const float *down = grid.down + head * shape.rows, *across = grid.across + head * shape.columns;
    grid.u[head] = 1.0f / (gathered(grid.v + grid.windows[head], down, across, shape) + float(kGuard));
  }
  for (int64_t head = 0; head < heads; ++head) {
    const float *down = grid.down + head * shape.rows, *across = grid.across + head * shape.columns;
    scatter(grid.u[head], grid.ktu + grid.windows[head], down, across, shape);
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
      grid.b[cell] = static_cast<float>(value / (mass + kMassGuard) * heads);
      grid.ktu[cell] = 0.0f;
    }
  const auto first_row = [&](int64_t point) {
    return window_begin(args.points[2 * point + 1], args.regularisation, args.scale_y, args.stride, shape.rows,
                        args.height);
  };
  for (int row = 0; row <= args.height; ++row) grid.starts[row] = 0;
  for (int64_t point = first; point < first + heads; ++point) ++grid.starts[first_row(point) + 1];
  for (int row = 1; row <= args.height; ++row) grid.starts[row] += grid.starts[row - 1];
  for (int64_t point = first; point < first + heads; ++point) {
    const double x = args.points[2 * point], y = args.points[2 * point + 1];
    const int top = first_row(point);
    const int64_t head = grid.starts[top]++;
    const int left = window_begin(x, args.regularisation, args.scale_x, args.stride, shape.columns, shape.stride);
    float *down = grid.down + head * shape.rows, *across = grid.across + head * shape.columns;
    for (int row = 0; row < shape.rows; ++row)
      down[row] = static_cast<float>(factor(y, top + row, args.regularisation, args.scale_y, args.stride));
    for (int column = 0; column < shape.columns; ++column)
      across[column] =
          left + column < args.width
              ? static_cast<float>(factor(x, left + column, args.regularisation, args.scale_x, args.stride))
              : 0.0f;
    grid.windows[head] = top * shape.stride + left;
    scatter(1.0f, grid.ktu + grid.windows[head], down, across, shape);  // of the first u
  }
}

static void iterate(const Forward& args, const Shape& shape, int64_t heads, const Grid& grid) {
  const TinyIsZero tiny;
  const int64_t cells = int64_t(args.height) * shape.stride;
  const float guard = static_cast<float>(kGuard * heads);
  for (int iteration = 1; iteration <= args.iterations; ++iteration) {
    for (int64_t i = 0; i < cells; ++i) {
      grid.v[i] = grid.b[i] / (grid.ktu[i] + guard);
      grid.ktu[i] = 0.0f;
    }
    if (shape.rows == 8 && shape.columns == 8)
      half_iterations(grid, heads, {shape.stride, 8, 8, 0});
    else
      half_iterations(grid, heads, shape);
    if (iteration % kLooked) continue;
    double error = 0.0;
    for (int64_t i = 0; i < cells; ++i) {
      const double difference = (grid.b[i] - double(grid.ktu[i]) * grid.v[i]) / heads;
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
        objective += grid.b[cell] * beta / heads;
      }
  }
  args.objective[image] = static_cast<float>(objective);
}

static void forward(const Forward& args, int threads) {
  const Shape shape = transport::shape(args);
  const int64_t cells = int64_t(args.height) * shape.stride;
  float* maps = reinterpret_cast<float*>(args.workspace);  // half of it is enough: floats, not doubles
  float* down = maps + 3 * args.batch * cells;
  float* across = down + args.num_points * shape.rows;
  float* u = across + args.num_points * shape.columns;
  int32_t* windows = reinterpret_cast<int32_t*>(u + args.num_points);
  int32_t* starts = windows + args.num_points;
  parallel_each(args.batch, 1, threads, [&](int64_t image) {
    float* own = maps + 3 * image * cells;
    const int64_t first = args.offsets[image];
    one_image(args, shape, image,
              {own, own + cells, own + 2 * cells, down + first * shape.rows, across + first * shape.columns, u + first,
               windows + first, starts + image * (args.height + 1)});
  });
}

const TransportKernels transport_kernels{forward};

}  // namespace dkpnet::cpu::DKPNET_ISA
