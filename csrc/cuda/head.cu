// A block computes the whole tail for a part (kPart pixels of one image), tile by tile. It writes only the density, or
// in the backward pass grad_hidden and the part's parameter gradients. 16-bit types run on the tensor cores
// (head_tensor.cuh), float32 on plain FMA (head_float.cuh).
#include <type_traits>

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
  Tile tile(problem, shared, blockIdx.x / parts);
  tile.load_weights();
  for (int first = begin; first < end; first += Tile::kPixels) {
    tile.interpolate(first);
    tile.multiply_fine(first, first == begin);
    tile.compute_hidden2();
    if constexpr (Tile::kBackward) {
      tile.backward_hidden2(grad_density, first);
      tile.backward_hidden1(out, first);
      tile.add_weight2_gradient();
    } else {
      tile.store_density(out, first);
    }
  }
  if constexpr (Tile::kBackward) {
    float* partial = partials + int64_t(blockIdx.x) * (kHidden2 * kHidden1 + kSums);
    const float* sums = tile.store_weight2_gradient(partial);
    for (int i = threadIdx.x; i < kSums; i += Tile::kThreads) {
      float sum = 0.0f;
      for (int row = 0; row < 8; ++row) sum += sums[row * kSums + i];  // rows of threads, or warps
      partial[kHidden2 * kHidden1 + i] = sum;
    }
  }
}

// The adjoint of bilinear upsampling: a thread gathers 16 bytes of one source pixel.
template <typename T>
__global__ void __launch_bounds__(256, 4)
    downsample_kernel(const T* __restrict__ grad, T* __restrict__ out, int64_t count, int vectors, int height,
                      int width, int rows, int columns) {
  constexpr int kChunk = 4;  // columns whose weights are in registers while the rows go by
  const int64_t index = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (index >= count) return;
  const int64_t pixel = index / vectors, image = pixel / (int64_t(rows) * columns);
  const int column = int(pixel % columns), row = int(pixel / columns % rows);
  const Span down = bilinear_reach(row, rows, height), across = bilinear_reach(column, columns, width);
  const uint4* source = reinterpret_cast<const uint4*>(grad) + image * height * width * vectors + index % vectors;
  float sum[16 / sizeof(T)] = {};
  for (int first = across.begin; first < across.end; first += kChunk) {
    float by_column[kChunk];
#pragma unroll
    for (int i = 0; i < kChunk; ++i)
      by_column[i] = first + i < across.end ? bilinear_weight(first + i, column, columns, width) : 0.0f;
    for (int y = down.begin; y < down.end; ++y) {
      const float by_row = bilinear_weight(y, row, rows, height);
      const uint4* values = source + (int64_t(y) * width + first) * vectors;
      uint4 value[kChunk];
#pragma unroll
      for (int i = 0; i < kChunk; ++i)
        value[i] = by_row * by_column[i] != 0.0f ? values[int64_t(i) * vectors] : make_uint4(0, 0, 0, 0);
#pragma unroll
      for (int i = 0; i < kChunk; ++i)
        for_each_value<T>(value[i], [&](int e, float x) { sum[e] += by_row * by_column[i] * x; });
    }
  }
  uint32_t words[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    if constexpr (sizeof(T) == 4)
      words[i] = __float_as_uint(sum[i]);
    else
      words[i] = pack<T>(sum[2 * i], sum[2 * i + 1]);
  }
  reinterpret_cast<uint4*>(out)[index] = make_uint4(words[0], words[1], words[2], words[3]);
}

template <typename T, bool Backward>
using TileOf = std::conditional_t<std::is_same_v<T, float>, FloatTile<Backward>, TensorTile<T, Backward>>;

}  // namespace

#ifdef __CUDACC__

template <bool Backward>
static int launch(const Problem& problem, const void* grad_density, void* out, float* partials, void* stream) {
  const int64_t parts = (int64_t(problem.height) * problem.width + kPart - 1) / kPart;
  const unsigned blocks = unsigned(problem.batch * parts);
  if (blocks == 0) return 0;
  with_narrow_dtype(problem.dtype, [&](auto type) {
    using T = decltype(type);
    using Tile = TileOf<T, Backward>;
    tail_kernel<Tile><<<blocks, Tile::kThreads, 0, static_cast<cudaStream_t>(stream)>>>(
        problem, static_cast<const T*>(grad_density), static_cast<T*>(out), partials);
  });
  return cudaGetLastError();
}

int head_forward(const Forward& args, void* stream) {
  return launch<false>(args, nullptr, args.density, nullptr, stream);
}

int head_backward(const Backward& args, void* stream) {
  return launch<true>(args, args.grad_density, args.grad_hidden, args.partials, stream);
}

int head_downsample(const Downsample& args, void* stream) {
  with_narrow_dtype(args.dtype, [&](auto type) {
    using T = decltype(type);
    const int vectors = args.channels * int(sizeof(T)) / 16;
    const int64_t count = args.batch * args.rows * args.columns * vectors;
    if (count == 0) return;
    downsample_kernel<T><<<unsigned((count + 255) / 256), 256, 0, static_cast<cudaStream_t>(stream)>>>(
        static_cast<const T*>(args.grad), static_cast<T*>(args.out), count, vectors, args.height, args.width, args.rows,
        args.columns);
  });
  return cudaGetLastError();
}

#endif  // __CUDACC__

}  // namespace dkpnet::cuda
