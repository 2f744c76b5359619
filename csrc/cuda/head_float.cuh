// The tail of the attended head for float32, with plain FMA: 64 pixels; a thread has 8 pixels x 4 channels of hidden1
// and 8 pixels x 2 channels of hidden2.
#pragma once

#include "cuda/head_gather.cuh"

namespace dkpnet::cuda {
namespace {

// sum[c][i] += weight(c) * from[i]
template <int Channels, typename Weight>
__device__ __forceinline__ void add_products(float (&sum)[Channels][8], const float* from, const Weight& weight) {
  const float4 a = reinterpret_cast<const float4*>(from)[0], b = reinterpret_cast<const float4*>(from)[1];
  const float values[8] = {a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w};
#pragma unroll
  for (int c = 0; c < Channels; ++c) {
    const float by = weight(c);
#pragma unroll
    for (int i = 0; i < 8; ++i) sum[c][i] += values[i] * by;
  }
}

__device__ __forceinline__ void store_eight(float* to, const float (&from)[8]) {
  reinterpret_cast<float4*>(to)[0] = make_float4(from[0], from[1], from[2], from[3]);
  reinterpret_cast<float4*>(to)[1] = make_float4(from[4], from[5], from[6], from[7]);
}

template <bool Backward>
struct FloatTile {
  static constexpr int kThreads = 128, kBlocks = Backward ? 3 : 5, kPixels = 64;
  static constexpr int kDepth = 32;             // channels of the fine branch at a time
  static constexpr int kPitch = kPixels + 4;    // of shared rows of pixels, still 16-byte aligned
  static constexpr int kPitch2 = kHidden2 + 1;  // odd: lanes that read one column of many rows use different banks
  static constexpr bool kBackward = Backward;
  using Type = float;

  struct Shared {
    __align__(16) float hidden1[kHidden1 * kPitch];               // [channel][pixel]; before: fine and its weights
    __align__(16) float weight2[kHidden1 * kPitch2];              // [hidden1][hidden2]
    __align__(16) float grad2[Backward ? kHidden2 * kPitch : 1];  // [channel][pixel]
  };
  static_assert(kDepth * (kPitch + kHidden1) <= kHidden1 * kPitch, "fine and its weights fit");

  const Problem& problem;
  Shared& shared;
  const int64_t image;
  const int pixels = problem.height * problem.width;
  const int tx = threadIdx.x % 16, ty = threadIdx.x / 16;
  float hidden[4][8];   // [channel 4 tx + c][pixel 8 ty + i]
  float hidden2[2][8];  // [channel 2 tx + c], before its ReLU
  float weight3[2];
  // Of rows ty * 4 + r and columns tx + 16 c of weight2, and of the thread's own channels.
  float weight2_sum[4][4] = {}, bias2_sum[2] = {}, weight3_sum[2] = {}, bias_sum[4] = {}, bias3_sum = 0.0f;

  __device__ __forceinline__ FloatTile(const Problem& all, Shared& memory, int64_t of)
      : problem(all), shared(memory), image(of) {}

  // A tile begins with a barrier before these are read.
  __device__ __forceinline__ void load_weights() {
    for (int i = threadIdx.x; i < kHidden2 * kHidden1; i += kThreads)
      shared.weight2[i % kHidden1 * kPitch2 + i / kHidden1] = problem.weight2[i];
    weight3[0] = problem.weight3[2 * tx], weight3[1] = problem.weight3[2 * tx + 1];
  }

  // hidden = bias + the interpolated products
  __device__ __forceinline__ void interpolate(int first) {
    const float4 bias = *reinterpret_cast<const float4*>(problem.bias + image * kHidden1 + 4 * tx);
#pragma unroll
    for (int i = 0; i < 8; ++i)
      hidden[0][i] = bias.x, hidden[1][i] = bias.y, hidden[2][i] = bias.z, hidden[3][i] = bias.w;
    const auto at = [&](int i) { return ty % 2 * 8 + i; };
    gather<float, 8>(problem, image, first + ty / 2 * 16, at, [&](int i, const float* row, float weight) {
      const float4 value = *reinterpret_cast<const float4*>(row + 4 * tx);
      hidden[0][i] += weight * value.x, hidden[1][i] += weight * value.y;
      hidden[2][i] += weight * value.z, hidden[3][i] += weight * value.w;
    });
  }

  // hidden += fine_weight^T fine
  __device__ __forceinline__ void multiply_fine(int first, bool) {
    float* fine = shared.hidden1;                           // [channel][pixel]
    float* fine_weight = shared.hidden1 + kDepth * kPitch;  // [channel][hidden1]
    const float* source = static_cast<const float*>(problem.fine) + image * problem.fine_batch;
    const float* source_weight = static_cast<const float*>(problem.fine_weight) + image * problem.fine_weight_batch;
    const bool channels_last = problem.fine_channel == 1;
    for (int start = 0; start < problem.channels; start += kDepth) {
      const int depth = problem.channels - start < kDepth ? problem.channels - start : kDepth;
      __syncthreads();  // the previous tile or chunk has been read
      for (int i = threadIdx.x; i < depth * kPixels; i += kThreads) {
        // Neighbouring threads read neighbouring addresses: pixels, or channels in channels_last.
        const int c = channels_last ? i % depth : i / kPixels, p = channels_last ? i / depth : i % kPixels;
        fine[c * kPitch + p] =
            first + p < pixels ? source[(start + c) * problem.fine_channel + (first + p) * problem.fine_pixel] : 0.0f;
      }
      for (int i = threadIdx.x; i < depth * kHidden1; i += kThreads)
        fine_weight[i] = source_weight[start * kHidden1 + i];
      __syncthreads();
      for (int k = 0; k < depth; ++k) {
        const float4 b = *reinterpret_cast<const float4*>(fine_weight + k * kHidden1 + 4 * tx);
        const float weights[4] = {b.x, b.y, b.z, b.w};
        add_products(hidden, fine + k * kPitch + 8 * ty, [&](int c) { return weights[c]; });
      }
    }
  }

  __device__ __forceinline__ void compute_hidden2() {
    __syncthreads();  // fine has been read, and hidden1 of the previous tile
#pragma unroll
    for (int c = 0; c < 4; ++c) {
#pragma unroll
      for (int i = 0; i < 8; ++i) hidden[c][i] = relu(hidden[c][i]);
      store_eight(shared.hidden1 + (4 * tx + c) * kPitch + 8 * ty, hidden[c]);
    }
    __syncthreads();
#pragma unroll
    for (int c = 0; c < 2; ++c) {
      const float bias2 = problem.bias2[2 * tx + c];
#pragma unroll
      for (int i = 0; i < 8; ++i) hidden2[c][i] = bias2;
    }
    for (int k = 0; k < kHidden1; ++k)
      add_products(hidden2, shared.hidden1 + k * kPitch + 8 * ty,
                   [&](int c) { return shared.weight2[k * kPitch2 + 2 * tx + c]; });
  }

  __device__ __forceinline__ void store_density(float* density, int first) {
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      float sum = weight3[0] * relu(hidden2[0][i]) + weight3[1] * relu(hidden2[1][i]);
      for (int step = 1; step < 16; step *= 2) sum += __shfl_xor_sync(kAll, sum, step);
      const int pixel = first + 8 * ty + i;
      if (tx == i && pixel < pixels) density[image * pixels + pixel] = sum + problem.bias3[0];
    }
  }

  // grad2 = the gradient at hidden2 before its ReLU; bias2's, weight3's and bias3's gradients are sums of it.
  __device__ __forceinline__ void backward_hidden2(const float* grad_density, int first) {
    float upstream[8];
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const int pixel = first + 8 * ty + i;
      upstream[i] = pixel < pixels ? grad_density[image * pixels + pixel] : 0.0f;
      if (tx == 0) bias3_sum += upstream[i];
    }
#pragma unroll
    for (int c = 0; c < 2; ++c) {
      float grad[8];
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        const float value = relu(hidden2[c][i]);
        grad[i] = relu_gradient(upstream[i] * weight3[c], value);
        weight3_sum[c] += upstream[i] * value;
        bias2_sum[c] += grad[i];
      }
      store_eight(shared.grad2 + (2 * tx + c) * kPitch + 8 * ty, grad);
    }
    __syncthreads();
  }

  // grad_hidden = ReLU'(hidden1) * (gradient at hidden2) weight2, and its sum, bias' gradient.
  __device__ __forceinline__ void backward_hidden1(float* grad_hidden, int first) {
    float grad[4][8] = {};
    for (int k = 0; k < kHidden2; ++k)
      add_products(grad, shared.grad2 + k * kPitch + 8 * ty,
                   [&](int c) { return shared.weight2[(4 * tx + c) * kPitch2 + k]; });
#pragma unroll
    for (int i = 0; i < 8; ++i) {
#pragma unroll
      for (int c = 0; c < 4; ++c) {
        grad[c][i] = relu_gradient(grad[c][i], hidden[c][i]);
        bias_sum[c] += grad[c][i];
      }
      const int pixel = first + 8 * ty + i;
      if (pixel < pixels)
        *reinterpret_cast<float4*>(grad_hidden + (image * pixels + pixel) * kHidden1 + 4 * tx) =
            make_float4(grad[0][i], grad[1][i], grad[2][i], grad[3][i]);
    }
  }

  // weight2_sum += (gradient at hidden2)^T hidden1 over the tile's pixels
  __device__ __forceinline__ void add_weight2_gradient() {
    for (int p = 0; p < kPixels; p += 4) {
      float4 right[4];
#pragma unroll
      for (int c = 0; c < 4; ++c)
        right[c] = *reinterpret_cast<const float4*>(shared.hidden1 + (tx + 16 * c) * kPitch + p);
#pragma unroll
      for (int r = 0; r < 4; ++r) {
        const float4 a = *reinterpret_cast<const float4*>(shared.grad2 + (ty * 4 + r) * kPitch + p);
#pragma unroll
        for (int c = 0; c < 4; ++c)
          weight2_sum[r][c] += a.x * right[c].x + a.y * right[c].y + a.z * right[c].z + a.w * right[c].w;
      }
    }
  }

  // Returns the other sums of each of the eight rows of threads.
  __device__ __forceinline__ const float* store_weight2_gradient(float* partial) {
#pragma unroll
    for (int r = 0; r < 4; ++r)
#pragma unroll
      for (int c = 0; c < 4; ++c) partial[(ty * 4 + r) * kHidden1 + tx + 16 * c] = weight2_sum[r][c];
    __syncthreads();  // hidden1 has been read
    float* mine = shared.hidden1 + ty * kSums;
    mine[2 * tx] = bias2_sum[0], mine[2 * tx + 1] = bias2_sum[1];
    mine[kHidden2 + 2 * tx] = weight3_sum[0], mine[kHidden2 + 2 * tx + 1] = weight3_sum[1];
#pragma unroll
    for (int c = 0; c < 4; ++c) mine[2 * kHidden2 + 4 * tx + c] = bias_sum[c];
    if (tx == 0) mine[kSums - 1] = bias3_sum;
    __syncthreads();
    return shared.hidden1;
  }
};

}  // namespace
}  // namespace dkpnet::cuda
