// The adjoint of bilinear upsampling: a thread gathers 16 bytes of one source pixel.
#pragma once

#include "cuda/head_gather.cuh"

#ifdef __CUDACC__
#include "cuda/mma.h"
#endif

namespace dkpnet::cuda {
namespace {

// sum += weight * 16 bytes
template <typename T>
__device__ __forceinline__ void add_vector(float (&sum)[16 / sizeof(T)], const uint4& value, float weight) {
  const uint32_t words[4] = {value.x, value.y, value.z, value.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    if constexpr (sizeof(T) == 4) {
      sum[i] += weight * __uint_as_float(words[i]);
    } else {
      const float2 pair = unpack<T>(words[i]);
      sum[2 * i] += weight * pair.x;
      sum[2 * i + 1] += weight * pair.y;
    }
  }
}

template <typename T>
__device__ __forceinline__ uint4 to_vector(const float (&sum)[16 / sizeof(T)]) {
  uint32_t words[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    if constexpr (sizeof(T) == 4)
      words[i] = __float_as_uint(sum[i]);
    else
      words[i] = pack<T>(sum[2 * i], sum[2 * i + 1]);
  }
  return make_uint4(words[0], words[1], words[2], words[3]);
}

template <typename T>
__global__ void __launch_bounds__(256, 4)
    downsample_kernel(const T* __restrict__ grad, T* __restrict__ out, int64_t count, int vectors, int height,
                      int width, int rows, int columns) {
  constexpr int kChunk = 4;  // columns whose weights are in registers while the rows go by
  const int64_t index = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (index >= count) return;
  const int64_t pixel = index / vectors, image = pixel / (int64_t(rows) * columns);
  const int column = int(pixel % columns), row = int(pixel / columns % rows);
  const Reach down = bilinear_reach(row, rows, height), across = bilinear_reach(column, columns, width);
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
      for (int i = 0; i < kChunk; ++i) add_vector<T>(sum, value[i], by_row * by_column[i]);
    }
  }
  reinterpret_cast<uint4*>(out)[index] = to_vector<T>(sum);
}

}  // namespace
}  // namespace dkpnet::cuda
