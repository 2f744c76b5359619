// Bayesian loss on the GPU: one launch, a block per image, three passes. First a thread takes a cell and loops over
// the heads, then a warp takes a head and loops over the cells, then a thread takes a cell again. No array of heads x
// cells is stored, and every sum has one order. Distances are in double, because their squares nearly cancel.
#include "cuda/reduce.cuh"
#include "math/bayesian.h"

namespace dkpnet::cuda {
namespace {

using namespace dkpnet::bayesian;

constexpr int kThreads = 512;
constexpr int kWarps = kThreads / 32;

struct Cell {
  double shift, scale, mass, ground;  // as in cpu/bayesian.cpp
};

__device__ double squared_distance(const Forward& args, const float* point, int cell) {
  const double dx = (cell % args.width + 0.5) * args.stride - point[0];
  const double dy = (cell / args.width + 0.5) * args.stride - point[1];
  return dx * dx + dy * dy;
}

// Weight of a head in a cell, relative to the cell's largest.
__device__ float weight(const Forward& args, double distance, double shift) {
  const double exponent = (distance - shift) / (2.0 * args.sigma * args.sigma);
  return exponent < kReach ? expf(static_cast<float>(-exponent)) : 0.0f;
}

__device__ Cell normalised(const Forward& args, const float* points, int64_t heads, int cell, float density,
                           float side) {
  double nearest = HUGE_VAL;
  for (int64_t head = 0; head < heads; ++head) {
    const double distance = squared_distance(args, points + 2 * head, cell);
    nearest = distance < nearest ? distance : nearest;
  }
  const double behind = background_distance(nearest, args.ratio * side, args.form);
  const double shift = behind < nearest ? behind : nearest;
  const double ground = exp((shift - behind) / (2.0 * args.sigma * args.sigma));
  double total = ground;
  for (int64_t head = 0; head < heads; ++head)
    total += weight(args, squared_distance(args, points + 2 * head, cell), shift);
  return {shift, 1.0 / total, density / total, ground / total};
}

__global__ void __launch_bounds__(kThreads) bayesian_kernel(Forward args) {
  __shared__ double loss_sums[kWarps], ground_sums[kWarps];
  const int thread = static_cast<int>(threadIdx.x), cells = args.height * args.width;
  const int64_t image = blockIdx.x;
  // Offsets are on the device and not checked: whatever they hold, nothing outside the points is read.
  const int64_t begin = args.offsets[image] > 0 ? args.offsets[image] : 0;
  const int64_t end = args.offsets[image + 1] < args.num_points ? args.offsets[image + 1] : args.num_points;
  const int64_t heads = end > begin ? end - begin : 0;
  const float *density = args.density + image * cells, *points = args.points + 2 * begin;
  float* slope = args.slope + image * cells;
  Cell* map = reinterpret_cast<Cell*>(args.workspace) + image * cells;
  double* signs = args.workspace + 4 * args.batch * cells + begin;

  double ground = 0.0, loss = 0.0;
  for (int cell = thread; cell < cells; cell += kThreads) {
    if (heads > 0) map[cell] = normalised(args, points, heads, cell, density[cell], args.sides[image]);
    ground += heads > 0 ? density[cell] * map[cell].ground : double(density[cell]);
  }
  ground = block_sum(ground, ground_sums);  // after its barrier the map is complete
  for (int64_t head = thread / 32; head < heads; head += kWarps) {
    double expected = 0.0;
    for (int cell = thread % 32; cell < cells; cell += 32)
      expected += map[cell].mass * weight(args, squared_distance(args, points + 2 * head, cell), map[cell].shift);
    const double excess = warp_sum(expected) - (args.targets ? args.targets[begin + head] : 1.0f);
    if (thread % 32 == 0) {
      signs[head] = sign_of(excess);
      loss += fabs(excess);
    }
  }
  loss = block_sum(loss, loss_sums) + fabs(ground);  // after its barrier the signs are complete
  if (thread == 0) args.loss[image] = static_cast<float>(loss);
  for (int cell = thread; cell < cells; cell += kThreads) {
    double total = 0.0;
    for (int64_t head = 0; head < heads; ++head)
      total += signs[head] * weight(args, squared_distance(args, points + 2 * head, cell), map[cell].shift);
    slope[cell] =
        static_cast<float>(heads > 0 ? total * map[cell].scale + sign_of(ground) * map[cell].ground : sign_of(ground));
  }
}

}  // namespace

#ifdef __CUDACC__

int bayesian_forward(const bayesian::Forward& args, void* stream) {
  if (args.batch == 0) return 0;
  bayesian_kernel<<<static_cast<unsigned>(args.batch), kThreads, 0, static_cast<cudaStream_t>(stream)>>>(args);
  return cudaGetLastError();
}

#endif  // __CUDACC__

}  // namespace dkpnet::cuda
