// The tail of the attended head for 16-bit types, on the tensor cores with float accumulators.
//
// Eight warps, 16 pixels each. In the fragments of mma.h a lane holds columns 8j + 2t and 8j + 2t + 1 of every 8-column
// tile j. The order of hidden1's channels inside the products is free, so position 8j + 2t + e stands for channel
// 32 (j / 4) + 8t + 2 (j % 4) + e: then a lane's 16 values are two vectors of 16 bytes, and the four lanes of a pixel
// read and write 64 neighbouring bytes with each.
#pragma once

#include "cuda/head_gather.cuh"

namespace dkpnet::cuda {
namespace {

__device__ __forceinline__ int position_of(int channel) {
  return channel / 32 * 32 + channel % 8 / 2 * 8 + channel % 32 / 8 * 2 + channel % 2;
}

// Sums over the two lanes that differ in `bit`: each of them keeps the sums of one half of the values.
template <int Half, int N>
__device__ __forceinline__ void sum_half(float (&values)[N], int bit) {
  const bool upper = threadIdx.x & bit;
#pragma unroll
  for (int i = 0; i < Half; ++i) {
    const float give = upper ? values[i] : values[i + Half], keep = upper ? values[i + Half] : values[i];
    values[i] = keep + __shfl_xor_sync(kAll, give, bit);
  }
}

// Sums values[N] over the eight lanes g that hold the same columns; lane g gets sums g N / 8 ... in values[0] ...
template <int N>
__device__ __forceinline__ void sum_and_share(float (&values)[N]) {
  sum_half<N / 2>(values, 16);
  sum_half<N / 4>(values, 8);
  sum_half<N / 8>(values, 4);
}

template <typename T, bool Backward>
struct TensorTile {
  static constexpr int kThreads = 256, kBlocks = 2, kWarps = kThreads / 32, kPixels = 16 * kWarps;
  static constexpr int kDepth = 64;  // channels of the fine branch at a time
  static constexpr int kPitch1 =
      kHidden1 + 8;  // of shared rows of 64 (kDepth too); + 8: load_matrices without conflicts
  static constexpr int kPitch2 = kHidden2 + 8;
  static constexpr int kPitchPixels = kPixels + 8;
  static constexpr int kFine = kPixels * kPitch1 > kDepth* kPitchPixels ? kPixels * kPitch1 : kDepth * kPitchPixels;
  static constexpr bool kBackward = Backward;
  using Type = T;

  struct Shared {
    __align__(16) T fine[kFine];  // [pixel][channel] or [channel][pixel]; backward: then hidden1 [pixel][position]
    __align__(16) T fine_weight[kDepth * kPitch1];            // [channel][position]
    __align__(16) T weight2[kHidden1 * kPitch2];              // [position][hidden2]
    __align__(16) T grad2[Backward ? kPixels * kPitch2 : 1];  // [pixel][hidden2]
    float bias2[kHidden2], weight3[kHidden2];
    float sums[Backward ? kWarps * kSums : 1];  // [warp][kSums]; in registers, only one block would fit
  };

  const Problem& problem;
  Shared& shared;
  const int64_t image;
  const int pixels = problem.height * problem.width;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, t = lane % 4;
  const int row8 = lane % 8, low = lane / 8 % 2 * 8, high = lane / 16 * 8;  // of load_matrices' addresses
  float hidden[8][4];      // C fragments of hidden1 before its ReLU, [column tile]
  uint32_t rounded[4][4];  // hidden1 as A fragments, [16 positions]
  float hidden2[4][4];     // C fragments of hidden2 before its ReLU
  uint32_t left[2][4];     // gradient at hidden2 before its ReLU as A fragments
  float weight2_sum[2][4] = {};

  __device__ __forceinline__ TensorTile(const Problem& all, Shared& memory, int64_t of)
      : problem(all), shared(memory), image(of) {}

  __device__ __forceinline__ void load_weights() {
    for (int i = threadIdx.x; i < kHidden2 * kHidden1; i += kThreads)
      shared.weight2[position_of(i % kHidden1) * kPitch2 + i / kHidden1] = narrow<T>(problem.weight2[i]);
    if (threadIdx.x < kHidden2) {
      shared.bias2[threadIdx.x] = problem.bias2[threadIdx.x];
      shared.weight3[threadIdx.x] = problem.weight3[threadIdx.x];
    }
    if constexpr (Backward)
      for (int i = threadIdx.x; i < kWarps * kSums; i += kThreads) shared.sums[i] = 0.0f;
    __syncthreads();
  }

  __device__ __forceinline__ int pixel_of(int first, int half) const { return first + warp * 16 + g + 8 * half; }

  // hidden = bias + the interpolated products
  __device__ __forceinline__ void interpolate(int first) {
#pragma unroll
    for (int j = 0; j < 8; j += 2) {
      const float4 bias = *reinterpret_cast<const float4*>(problem.bias + image * kHidden1 + channel_of(j));
      hidden[j][0] = hidden[j][2] = bias.x, hidden[j][1] = hidden[j][3] = bias.y;
      hidden[j + 1][0] = hidden[j + 1][2] = bias.z, hidden[j + 1][1] = hidden[j + 1][3] = bias.w;
    }
    const auto at = [&](int half) { return g + 8 * half; };
    gather<T, 2>(problem, image, first + warp * 16, at, [&](int half, const T* row, float weight) {
#pragma unroll
      for (int side = 0; side < 2; ++side) {
        for_each_value<T>(*reinterpret_cast<const uint4*>(row + 32 * side + 8 * t),
                          [&](int i, float value) { hidden[4 * side + i / 2][2 * half + i % 2] += weight * value; });
      }
    });
  }

  // The first of the two channels that the lane has of column tile j.
  __device__ __forceinline__ int channel_of(int j) const { return j / 4 * 32 + 8 * t + j % 4 * 2; }

  // rows x columns (a multiple of 8) of 16-bit values to `fine`, zero outside the valid part.
  __device__ __forceinline__ void stage(int pitch, const T* source, int64_t source_pitch, int rows, int columns,
                                        int valid_rows, int valid_columns) {
    const bool vectors =
        source_pitch % 8 == 0 && problem.fine_batch % 8 == 0 && reinterpret_cast<uintptr_t>(problem.fine) % 16 == 0;
    const int vectors_per_row = columns / 8;
    for (int i = threadIdx.x; i < rows * vectors_per_row; i += kThreads) {
      const int row = i / vectors_per_row, column = i % vectors_per_row * 8;
      const T* from = source + row * source_pitch + column;
      uint4 value = make_uint4(0, 0, 0, 0);
      if (row < valid_rows && vectors && column + 8 <= valid_columns) {
        value = *reinterpret_cast<const uint4*>(from);
      } else if (row < valid_rows) {
        uint32_t words[4] = {0, 0, 0, 0};
#pragma unroll
        for (int e = 0; e < 8; ++e)
          if (column + e < valid_columns) words[e / 2] |= uint32_t(from[e].bits) << (e % 2 * 16);
        value = make_uint4(words[0], words[1], words[2], words[3]);
      }
      *reinterpret_cast<uint4*>(shared.fine + row * pitch + column) = value;
    }
  }

  __device__ __forceinline__ void stage_weights(int start, int valid, int depth) {
    const T* source = static_cast<const T*>(problem.fine_weight) + image * problem.fine_weight_batch;
    for (int i = threadIdx.x; i < depth * kHidden1 / 2; i += kThreads) {
      const int c = i / (kHidden1 / 2), channel = i % (kHidden1 / 2) * 2;
      const uint32_t pair =
          c < valid ? *reinterpret_cast<const uint32_t*>(source + (start + c) * kHidden1 + channel) : 0u;
      *reinterpret_cast<uint32_t*>(shared.fine_weight + c * kPitch1 + position_of(channel)) = pair;
    }
  }

  // hidden += fine_weight^T fine; `fresh`: the part's first tile, before which nothing is staged.
  __device__ __forceinline__ void multiply_fine(int first, bool fresh) {
    const bool channels_last = problem.fine_channel == 1;
    const T* source = static_cast<const T*>(problem.fine) + image * problem.fine_batch;
    for (int start = 0; start < problem.channels; start += kDepth) {
      const int valid = problem.channels - start < kDepth ? problem.channels - start : kDepth;
      const int depth = (valid + 15) / 16 * 16;
      __syncthreads();  // the previous tile or chunk has been read
      if (channels_last)
        stage(kPitch1, source + first * problem.fine_pixel + start, problem.fine_pixel, kPixels, depth, pixels - first,
              valid);
      else
        stage(kPitchPixels, source + start * problem.fine_channel + first, problem.fine_channel, depth, kPixels, valid,
              pixels - first);
      if (fresh || problem.channels > kDepth) stage_weights(start, valid, depth);
      __syncthreads();
      for (int k = 0; k < depth; k += 16) {
        uint32_t a[4], b[4];
        if (channels_last)
          load_matrices<false>(a, shared.fine + (warp * 16 + row8 + low) * kPitch1 + k + high);
        else
          load_matrices<true>(a, shared.fine + (k + row8 + high) * kPitchPixels + warp * 16 + low);
#pragma unroll
        for (int j = 0; j < 8; j += 2) {
          load_matrices<true>(b, shared.fine_weight + (k + row8 + low) * kPitch1 + j * 8 + high);
          multiply_add<T>(hidden[j], a, b[0], b[1]);
          multiply_add<T>(hidden[j + 1], a, b[2], b[3]);
        }
      }
    }
  }

  __device__ __forceinline__ void compute_hidden2() {
#pragma unroll
    for (int j = 0; j < 8; ++j) {
      rounded[j / 2][j % 2 * 2] = pack<T>(relu(hidden[j][0]), relu(hidden[j][1]));
      rounded[j / 2][j % 2 * 2 + 1] = pack<T>(relu(hidden[j][2]), relu(hidden[j][3]));
    }
#pragma unroll
    for (int j = 0; j < 4; ++j)
#pragma unroll
      for (int i = 0; i < 4; ++i) hidden2[j][i] = shared.bias2[8 * j + 2 * t + i % 2];
#pragma unroll
    for (int k = 0; k < 4; ++k)
#pragma unroll
      for (int j = 0; j < 4; j += 2) {
        uint32_t b[4];
        load_matrices<true>(b, shared.weight2 + (k * 16 + row8 + low) * kPitch2 + j * 8 + high);
        multiply_add<T>(hidden2[j], rounded[k], b[0], b[1]);
        multiply_add<T>(hidden2[j + 1], rounded[k], b[2], b[3]);
      }
  }

  __device__ __forceinline__ void store_density(T* density, int first) {
    float sum[2] = {};
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const float weight = shared.weight3[i / 2 * 8 + 2 * t + i % 2];
      sum[0] += weight * relu(hidden2[i / 2][i % 2]);
      sum[1] += weight * relu(hidden2[i / 2][2 + i % 2]);
    }
    for (int step = 1; step < 4; step *= 2) {
      sum[0] += __shfl_xor_sync(kAll, sum[0], step);
      sum[1] += __shfl_xor_sync(kAll, sum[1], step);
    }
    const int pixel = pixel_of(first, t);
    if (t < 2 && pixel < pixels)
      density[image * pixels + pixel] = narrow<T>((t == 0 ? sum[0] : sum[1]) + problem.bias3[0]);
  }

  // The gradient at hidden2 before its ReLU, and the sums of it that are bias2's, weight3's and bias3's gradients.
  __device__ __forceinline__ void backward_hidden2(const T* grad_density, int first) {
    float upstream[2], bias2_sum[8], weight3_sum[8];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int pixel = pixel_of(first, half);
      upstream[half] = pixel < pixels ? widen(grad_density[image * pixels + pixel]) : 0.0f;
    }
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      float grad[4], value[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        value[i] = relu(hidden2[j][i]);
        grad[i] = relu_gradient(upstream[i / 2] * shared.weight3[8 * j + 2 * t + i % 2], value[i]);
      }
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        bias2_sum[2 * j + e] = grad[e] + grad[2 + e];
        weight3_sum[2 * j + e] = upstream[0] * value[e] + upstream[1] * value[2 + e];
        left[j / 2][j % 2 * 2 + e] = pack<T>(grad[2 * e], grad[2 * e + 1]);
      }
    }
    sum_and_share(bias2_sum);
    sum_and_share(weight3_sum);
    float total = upstream[0] + upstream[1];
    for (int step = 4; step < 32; step *= 2) total += __shfl_xor_sync(kAll, total, step);
    float* sums = shared.sums + warp * kSums;
    const int channel = g / 2 * 8 + 2 * t + g % 2;
    sums[channel] += bias2_sum[0];
    sums[kHidden2 + channel] += weight3_sum[0];
    if (lane == 0) sums[kSums - 1] += total;
  }

  // grad_hidden = ReLU'(hidden1) * (gradient at hidden2) weight2, and its sum, bias' gradient.
  __device__ __forceinline__ void backward_hidden1(T* grad_hidden, int first) {
    float grad[8][4] = {};
#pragma unroll
    for (int k = 0; k < 2; ++k)
#pragma unroll
      for (int j = 0; j < 8; j += 2) {
        uint32_t b[4];
        load_matrices<false>(b, shared.weight2 + (j * 8 + row8 + high) * kPitch2 + k * 16 + low);
        multiply_add<T>(grad[j], left[k], b[0], b[1]);
        multiply_add<T>(grad[j + 1], left[k], b[2], b[3]);
      }
    uint32_t words[2][8];
    float bias_sum[16];
#pragma unroll
    for (int j = 0; j < 8; ++j) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const float2 value = unpack<T>(rounded[j / 2][j % 2 * 2 + half]);
        grad[j][2 * half] = relu_gradient(grad[j][2 * half], value.x);
        grad[j][2 * half + 1] = relu_gradient(grad[j][2 * half + 1], value.y);
        words[half][j] = pack<T>(grad[j][2 * half], grad[j][2 * half + 1]);
      }
      bias_sum[2 * j] = grad[j][0] + grad[j][2], bias_sum[2 * j + 1] = grad[j][1] + grad[j][3];
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int pixel = pixel_of(first, half);
      if (pixel >= pixels) continue;
      T* target = grad_hidden + (image * pixels + pixel) * kHidden1 + 8 * t;
      const uint32_t (&word)[8] = words[half];
      *reinterpret_cast<uint4*>(target) = make_uint4(word[0], word[1], word[2], word[3]);
      *reinterpret_cast<uint4*>(target + 32) = make_uint4(word[4], word[5], word[6], word[7]);
    }
    sum_and_share(bias_sum);
    float* sums = shared.sums + warp * kSums + 2 * kHidden2 + channel_of(g);
    sums[0] += bias_sum[0], sums[1] += bias_sum[1];
  }

  // weight2_sum += (gradient at hidden2)^T hidden1 over the tile's pixels; a warp has one column tile.
  __device__ __forceinline__ void add_weight2_gradient() {
    __syncthreads();  // fine has been read
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = warp * 16 + g + 8 * half;
#pragma unroll
      for (int j = 0; j < 8; ++j)
        *reinterpret_cast<uint32_t*>(shared.fine + row * kPitch1 + 8 * j + 2 * t) = rounded[j / 2][j % 2 * 2 + half];
#pragma unroll
      for (int j = 0; j < 4; ++j)
        *reinterpret_cast<uint32_t*>(shared.grad2 + row * kPitch2 + 8 * j + 2 * t) = left[j / 2][j % 2 * 2 + half];
    }
    __syncthreads();
#pragma unroll
    for (int k = 0; k < kPixels; k += 32) {
      uint32_t b[4], a[4];
      load_matrices<true>(b, shared.fine + (k + lane) * kPitch1 + warp * 8);
#pragma unroll
      for (int step = 0; step < 2; ++step)
#pragma unroll
        for (int m = 0; m < 2; ++m) {
          load_matrices<true>(a, shared.grad2 + (k + step * 16 + row8 + high) * kPitch2 + m * 16 + low);
          multiply_add<T>(weight2_sum[m], a, b[2 * step], b[2 * step + 1]);
        }
    }
  }

  // Returns the other sums of each of the eight warps; the barriers of the last tile order them before this.
  __device__ __forceinline__ const float* store_weight2_gradient(float* partial) {
#pragma unroll
    for (int m = 0; m < 2; ++m)
#pragma unroll
      for (int i = 0; i < 4; ++i)
        partial[(m * 16 + g + i / 2 * 8) * kHidden1 + channel_of(warp) + i % 2] = weight2_sum[m][i];
    return shared.sums;
  }
};

}  // namespace
}  // namespace dkpnet::cuda
