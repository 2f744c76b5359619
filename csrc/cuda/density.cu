// Density targets on the GPU, one launch. A block computes a tile of output cells and loops over the heads of its image
// in order. So every cell is a sum in a fixed order (the same bits in every run) and written once: nothing has to be
// zeroed, and there are no atomics.
#include "cuda/reduce.cuh"
#include "math/density.h"

namespace dkpnet::cuda {
namespace {

using namespace dkpnet::density;

constexpr int kTileColumns = 32;  // one lane each: a warp stores one 128-byte row
constexpr int kTileRows = 8;      // one warp each
constexpr int kThreads = kTileColumns * kTileRows;
constexpr int kWarps = kThreads / 32;
constexpr int kGroup = 64;  // heads whose shares are in shared memory at a time: 64 * (32 + 8) floats = 10 KiB

struct Head {
  int x, y, radius;
  float scale;
};

// Share of a head's mass in one cell along one axis. All lanes of a warp call it for the same head and axis.
__device__ float axis_share(int center, const Head& head, int length, int stride, int cell, int lane) {
  const Span stamp = stamp_span(center, head.radius, length);
  const float mass = warp_sum(span_mass({stamp.begin + lane, stamp.end}, 32, center, head.scale));
  return span_mass(cell_span(stamp, cell, stride), 1, center, head.scale) / mass;
}

__global__ void __launch_bounds__(kThreads) density_kernel(Forward args, int tiles_down, int tiles_across) {
  __shared__ Head heads[kThreads];
  __shared__ float by_column[kGroup][kTileColumns], by_row[kGroup][kTileRows];
  __shared__ int touching[kWarps];

  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int column0 = static_cast<int>(blockIdx.x % tiles_across) * kTileColumns;
  const int row0 = static_cast<int>(blockIdx.x / tiles_across % tiles_down) * kTileRows;
  const int64_t image = blockIdx.x / tiles_across / tiles_down;
  const int stride = args.stride;
  const int limit = args.height > args.width ? args.height : args.width;
  // Offsets are on the device and not checked: whatever they hold, nothing outside the points is read.
  const int64_t begin = args.offsets[image] > 0 ? args.offsets[image] : 0;
  const int64_t end = args.offsets[image + 1] < args.num_points ? args.offsets[image + 1] : args.num_points;

  float sum = 0.0f, lost = 0.0f;
  for (int64_t chunk = begin; chunk < end; chunk += kThreads) {
    // Every thread checks one head; those whose stamp touches the tile are kept, in order.
    Head head;
    bool touches = false;
    const int64_t index = chunk + threadIdx.x;
    if (index < end && pixel_of(args.points[2 * index], args.width, head.x) &&
        pixel_of(args.points[2 * index + 1], args.height, head.y)) {
      const float sigma = args.sigmas ? args.sigmas[index] : args.sigma;
      head.radius = stamp_radius(sigma, args.truncate, limit);
      head.scale = stamp_scale(sigma, head.radius);
      touches = head.x + head.radius >= column0 * stride && head.x - head.radius < (column0 + kTileColumns) * stride &&
                head.y + head.radius >= row0 * stride && head.y - head.radius < (row0 + kTileRows) * stride;
    }
    const unsigned votes = __ballot_sync(0xffffffffu, touches);
    if (lane == 0) touching[warp] = __popc(votes);
    __syncthreads();
    int slot = __popc(votes & ((1u << lane) - 1u)), total = 0;
    for (int w = 0; w < kWarps; ++w) {
      if (w < warp) slot += touching[w];
      total += touching[w];
    }
    if (touches) heads[slot] = head;
    __syncthreads();

    for (int group = 0; group < total; group += kGroup) {
      const int count = total - group < kGroup ? total - group : kGroup;
      for (int h = warp; h < count; h += kWarps) {
        const Head mine = heads[group + h];
        by_column[h][lane] = axis_share(mine.x, mine, args.width, stride, column0 + lane, lane);
        const float share = axis_share(mine.y, mine, args.height, stride, row0 + lane % kTileRows, lane);
        if (lane < kTileRows) by_row[h][lane] = share;
      }
      __syncthreads();
      for (int h = 0; h < count; ++h) add_compensated(sum, lost, by_row[h][warp] * by_column[h][lane]);
      __syncthreads();
    }
  }

  const int rows = (args.height + stride - 1) / stride, columns = (args.width + stride - 1) / stride;
  const int row = row0 + warp, column = column0 + lane;
  if (row < rows && column < columns) args.out[(image * rows + row) * columns + column] = sum;
}

}  // namespace

#ifdef __CUDACC__

int density_forward(const density::Forward& args, void* stream) {
  const int rows = (args.height + args.stride - 1) / args.stride,
            columns = (args.width + args.stride - 1) / args.stride;
  const int tiles_down = (rows + kTileRows - 1) / kTileRows, tiles_across = (columns + kTileColumns - 1) / kTileColumns;
  const int64_t blocks = args.batch * tiles_down * tiles_across;
  if (blocks == 0) return 0;
  density_kernel<<<static_cast<unsigned>(blocks), kThreads, 0, static_cast<cudaStream_t>(stream)>>>(args, tiles_down,
                                                                                                    tiles_across);
  return cudaGetLastError();
}

#endif  // __CUDACC__

}  // namespace dkpnet::cuda
