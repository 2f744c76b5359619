// A block computes the whole tail for a part (kPart pixels of one image), tile by tile. It writes only the density, or
// in the backward pass grad_hidden and the part's parameter gradients. 16-bit types run on the tensor cores
// (head_tensor.cuh), float32 on plain FMA (head_float.cuh).
#include "cuda/head.h"
#include "cuda/head_adjoint.cuh"
#include "cuda/head_float.cuh"
#include "cuda/head_tensor.cuh"

namespace dkpnet::cuda {
namespace {

template <typename Tile>
__global__ void __launch_bounds__(Tile::kThreads, Tile::kBlocks)
    tail_kernel(const Problem problem, const typename Tile::Type* __restrict__ grad_density,
                typename Tile::Type* __restrict__ out, float* __restrict__ partials) {
  __shared__ typename Tile::Shared shared;
  const int pixels = problem.height * problem.width, parts = (pixels + kPart - 1) / kPart;
  const int begin = blockIdx.x % parts * kPart, end = begin + kPart < pixels ? begin + kPart : pixels;
  Tile tile(problem, shared, blockIdx.x / parts, begin);
  tile.load_weights();
  for (int first = begin; first < end; first += Tile::kPixels) {
    tile.interpolate(first);
    tile.multiply_fine(first);
    tile.compute_hidden2();
    if constexpr (Tile::kBackward)
      tile.backward(grad_density, out, first);
    else
      tile.store_density(out, first);
  }
  if constexpr (Tile::kBackward)
    tile.store_partials(partials + int64_t(blockIdx.x) * (kHidden2 * kHidden1 + Tile::kSums));
}

template <typename T, bool Backward>
struct TileOf {
  using type = TensorTile<T, Backward>;
};
template <bool Backward>
struct TileOf<float, Backward> {
  using type = FloatTile<Backward>;
};

}  // namespace

#ifdef __CUDACC__
namespace {

template <bool Backward>
int launch(const Problem& problem, const void* grad_density, void* out, float* partials, void* stream) {
  const int64_t parts = (int64_t(problem.height) * problem.width + kPart - 1) / kPart;
  const unsigned blocks = unsigned(problem.batch * parts);
  if (blocks == 0) return 0;
  with_narrow_dtype(problem.dtype, [&](auto type) {
    using T = decltype(type);
    using Tile = typename TileOf<T, Backward>::type;
    tail_kernel<Tile><<<blocks, Tile::kThreads, 0, static_cast<cudaStream_t>(stream)>>>(
        problem, static_cast<const T*>(grad_density), static_cast<T*>(out), partials);
  });
  return cudaGetLastError();
}

template <typename T>
void launch_downsample(const Downsample& args, cudaStream_t stream) {
  const int vectors = args.channels * int(sizeof(T)) / 16;
  const int64_t count = args.batch * args.rows * args.columns * vectors;
  if (count == 0) return;
  downsample_kernel<T><<<unsigned((count + 255) / 256), 256, 0, stream>>>(
      static_cast<const T*>(args.grad), static_cast<T*>(args.out), count, vectors, args.height, args.width, args.rows,
      args.columns);
}

}  // namespace

int head_forward(const Forward& args, void* stream) {
  return launch<false>(args, nullptr, args.density, nullptr, stream);
}

int head_backward(const Backward& args, void* stream) {
  return launch<true>(args, args.grad_density, args.grad_hidden, args.partials, stream);
}

int head_downsample(const Downsample& args, void* stream) {
  with_narrow_dtype(args.dtype,
                    [&](auto type) { launch_downsample<decltype(type)>(args, static_cast<cudaStream_t>(stream)); });
  return cudaGetLastError();
}

#endif  // __CUDACC__

}  // namespace dkpnet::cuda
