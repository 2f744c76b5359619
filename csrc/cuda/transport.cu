// Optimal transport on the GPU: one launch for all iterations, a block per image. An iteration is a pass over the
// cells, each of which gathers K^T u from the heads whose windows hold it, and one over the heads, a warp each, which
// gather K v from their windows. Both are sums in a fixed order: no atomics, the same bits in every run. All arithmetic
// is in double, since u and v span 32 orders of magnitude.
#include "cuda/reduce.cuh"
#include "math/transport.h"

namespace dkpnet::cuda {
namespace {

using namespace dkpnet::transport;

constexpr int kThreads = 512;
constexpr int kWarps = kThreads / 32;

struct Image {
  double *b, *v, *ktu;            // [height, shape.stride]
  double *down, *across, *first;  // of the heads: factors of K, first cell of the window
  double *u, *order, *rows;       // u by head; heads by first row of their window; each row's begin in it, [height + 1]
};

__device__ Image image_of(const Forward& args, const Shape& shape, int64_t image, int64_t head) {
  const int64_t cells = int64_t(args.height) * shape.stride;
  double* heads = args.workspace + 3 * args.batch * cells;
  double* first = heads + args.num_points * (shape.rows + shape.columns);
  return {args.workspace + 3 * image * cells,
          args.workspace + (3 * image + 1) * cells,
          args.workspace + (3 * image + 2) * cells,
          heads + head * shape.rows,
          heads + args.num_points * shape.rows + head * shape.columns,
          first + head,
          first + args.num_points + head,
          first + 2 * args.num_points + head,
          first + 3 * args.num_points + image * (args.height + 1)};
}

__device__ void find_window(const Forward& args, const Shape& shape, const Image& my, const float* point,
                            int64_t head) {
  const double x = point[0], y = point[1];
  const int top = window_begin(y, args.regularisation, args.scale_y, args.stride, shape.rows, args.height);
  const int left = window_begin(x, args.regularisation, args.scale_x, args.stride, shape.columns, shape.stride);
  for (int row = 0; row < shape.rows; ++row)
    my.down[head * shape.rows + row] = factor(y, top + row, args.regularisation, args.scale_y, args.stride);
  for (int column = 0; column < shape.columns; ++column)
    my.across[head * shape.columns + column] =
        left + column < args.width ? factor(x, left + column, args.regularisation, args.scale_x, args.stride) : 0.0;
  my.first[head] = static_cast<double>(top * shape.stride + left);
}

// The heads whose windows begin in a row, in their order.
__device__ void list_row(const Shape& shape, const Image& my, int64_t heads, int row) {
  int64_t place = 0;
  for (int64_t head = 0; head < heads; ++head) place += static_cast<int>(my.first[head]) / shape.stride < row;
  my.rows[row] = static_cast<double>(place);
  for (int64_t head = 0; head < heads; ++head)
    if (static_cast<int>(my.first[head]) / shape.stride == row) my.order[place++] = static_cast<double>(head);
}

// K^T u of a cell.
__device__ double gathered(const Shape& shape, const Image& my, int row, int column) {
  const int first = row - shape.rows + 1 > 0 ? row - shape.rows + 1 : 0;
  double total = 0.0;
  for (int64_t i = static_cast<int64_t>(my.rows[first]); i < static_cast<int64_t>(my.rows[row + 1]); ++i) {
    const int64_t head = static_cast<int64_t>(my.order[i]);
    const int window = static_cast<int>(my.first[head]), left = window % shape.stride;
    if (column < left || column >= left + shape.columns) continue;
    total += my.u[head] * my.down[head * shape.rows + row - window / shape.stride] *
             my.across[head * shape.columns + column - left];
  }
  return total;
}

// K v of a head, by all lanes of a warp.
__device__ double spread(const Shape& shape, const Image& my, int64_t head, int lane) {
  const double* v = my.v + static_cast<int>(my.first[head]);
  double total = 0.0;
  for (int i = lane; i < shape.rows * shape.columns; i += 32) {
    const int row = i / shape.columns, column = i % shape.columns;
    total +=
        my.down[head * shape.rows + row] * my.across[head * shape.columns + column] * v[row * shape.stride + column];
  }
  return warp_sum(total);
}

__global__ void __launch_bounds__(kThreads) transport_kernel(Forward args, Shape shape) {
  __shared__ double mass_sums[kWarps], error_sums[kWarps], objective_sums[kWarps];
  const int thread = static_cast<int>(threadIdx.x), cells = args.height * shape.stride;
  const int64_t image = blockIdx.x, pixels = int64_t(args.height) * args.width;
  // Offsets are on the device and not checked: whatever they hold, nothing outside the points is read.
  const int64_t begin = args.offsets[image] > 0 ? args.offsets[image] : 0;
  const int64_t end = args.offsets[image + 1] < args.num_points ? args.offsets[image + 1] : args.num_points;
  const int64_t heads = end > begin ? end - begin : 0;
  const float* density = args.density + image * pixels;
  float* potential = args.potential + image * pixels;
  if (heads == 0) {
    for (int64_t i = thread; i < pixels; i += kThreads) potential[i] = 0.0f;
    if (thread == 0) args.objective[image] = 0.0f;
    return;
  }

  const Image my = image_of(args, shape, image, begin);
  double mass = 0.0;
  for (int64_t i = thread; i < pixels; i += kThreads) mass += density[i];
  mass = block_sum(mass, mass_sums);
  for (int cell = thread; cell < cells; cell += kThreads) {
    const int row = cell / shape.stride, column = cell % shape.stride;
    my.b[cell] = column < args.width ? density[int64_t(row) * args.width + column] / (mass + kMassGuard) : 0.0;
    my.v[cell] = 0.0;
  }
  for (int64_t head = thread; head < heads; head += kThreads) {
    find_window(args, shape, my, args.points + 2 * (begin + head), head);
    my.u[head] = 1.0 / heads;
  }
  __syncthreads();
  for (int row = thread; row <= args.height; row += kThreads) list_row(shape, my, heads, row);
  __syncthreads();

  for (int iteration = 0;; ++iteration) {
    const bool looked = iteration > 0 && iteration % kLooked == 0;
    double error = 0.0;
    for (int cell = thread; cell < cells; cell += kThreads) {
      my.ktu[cell] = gathered(shape, my, cell / shape.stride, cell % shape.stride);
      const double difference = my.b[cell] - my.ktu[cell] * my.v[cell];
      error += difference * difference;
    }
    if (looked && block_sum(error, error_sums) <= kStop) break;
    if (iteration == args.iterations) break;
    for (int cell = thread; cell < cells; cell += kThreads) my.v[cell] = my.b[cell] / (my.ktu[cell] + kGuard);
    __syncthreads();
    for (int64_t head = thread / 32; head < heads; head += kWarps) {
      const double total = spread(shape, my, head, thread % 32);
      if (thread % 32 == 0) my.u[head] = 1.0 / heads / (total + kGuard);
    }
    __syncthreads();
  }

  double objective = 0.0;
  for (int cell = thread; cell < cells; cell += kThreads) {
    const int row = cell / shape.stride, column = cell % shape.stride;
    if (column >= args.width) continue;
    const double beta = args.regularisation * log(my.v[cell] + kGuard);
    potential[int64_t(row) * args.width + column] = static_cast<float>(beta);
    objective += my.b[cell] * beta;
  }
  objective = block_sum(objective, objective_sums);
  if (thread == 0) args.objective[image] = static_cast<float>(objective);
}

}  // namespace

#ifdef __CUDACC__

int transport_forward(const transport::Forward& args, void* stream) {
  if (args.batch == 0) return 0;
  transport_kernel<<<static_cast<unsigned>(args.batch), kThreads, 0, static_cast<cudaStream_t>(stream)>>>(
      args, transport::shape(args));
  return cudaGetLastError();
}

#endif  // __CUDACC__

}  // namespace dkpnet::cuda
