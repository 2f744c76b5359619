// A block takes a part (kPart pixels of one image) tile by tile through the whole tail; nothing but the density, or in
// the backward pass grad_hidden and the part's parameter gradients, is written. 16-bit types run on the tensor cores
// with float accumulators, float32 with plain FMA.
#include "cuda/head.h"

#include "cuda/runtime.h"

#ifdef __CUDACC__
#include "cuda/mma.h"
#endif

namespace dkpnet::cuda {
namespace {

using namespace dkpnet::head;

constexpr int kHidden1 = kHeadHidden1, kHidden2 = kHeadHidden2;
constexpr int kSums = 2 * kHidden2 + kHidden1 + 1;  // of a part: bias2 | weight3 | bias | bias3
constexpr unsigned kAll = 0xffffffffu;

// One element of a product at an output pixel, given where the four sources are: offsets of rows of hidden1 channels.
struct Corners {
  int64_t top_left, top_right, bottom_left, bottom_right;
  float weights[4];
};

__device__ __forceinline__ Corners corners(const Problem& problem, const Product& product, int64_t image, int pixel) {
  const Tap row = bilinear_tap(pixel / problem.width, product.height, problem.height);
  const Tap column = bilinear_tap(pixel % problem.width, product.width, problem.width);
  const int64_t top = (image * product.height + row.low) * product.width;
  const int64_t bottom = (image * product.height + row.high) * product.width;
  const float right = column.weight, left = 1.0f - right, down = row.weight, up = 1.0f - down;
  return Corners{(top + column.low) * kHidden1,     (top + column.high) * kHidden1,
                 (bottom + column.low) * kHidden1,  (bottom + column.high) * kHidden1,
                 {up * left, up * right, down * left, down * right}};
}

// ---- 16-bit types: tensor cores ------------------------------------------------------------------------------------
//
// Eight warps, 16 pixels each. In the fragments of mma.h a lane holds columns 8j + 2t and 8j + 2t + 1 of every 8-column
// tile j. The order of hidden1's channels inside the products is free, so position 8j + 2t + e stands for channel
// 16t + 2j + e: then a lane's 16 values are 16 neighbouring channels, read and written as two 16-byte vectors.

constexpr int kThreads = 256, kWarps = kThreads / 32, kTile = 16 * kWarps;
constexpr int kDepth = 64;                 // channels of the fine branch at a time
constexpr int kPitch1 = kHidden1 + 8;      // of shared rows of 64 (kDepth too); + 8: no bank conflicts in load_matrices
constexpr int kPitch2 = kHidden2 + 8;
constexpr int kPitchPixels = kTile + 8;

__device__ __forceinline__ int position_of(int channel) { return channel % 16 / 2 * 8 + channel / 16 * 2 + channel % 2; }

// rows x columns (a multiple of 8) of 16-bit values to shared memory, zero outside the valid part.
template <typename T>
__device__ __forceinline__ void stage(T* target, int pitch, const T* source, int64_t source_pitch, int rows, int columns,
                                      int valid_rows, int valid_columns, bool vectors) {
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
    *reinterpret_cast<uint4*>(target + row * pitch + column) = value;
  }
}

// sum[2j + e] += weight * channel 16t + 2j + e.
template <typename T>
__device__ __forceinline__ void add_row(float (&sum)[16], const T* row, float weight) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const uint4 value = reinterpret_cast<const uint4*>(row)[half];
    const uint32_t words[4] = {value.x, value.y, value.z, value.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float2 pair = unpack<T>(words[i]);
      sum[half * 8 + 2 * i] += weight * pair.x;
      sum[half * 8 + 2 * i + 1] += weight * pair.y;
    }
  }
}

// Bias and interpolated products of one pixel, the lane's 16 channels.
template <typename T>
__device__ __forceinline__ void gather(float (&sum)[16], const Problem& problem, int64_t image, int pixel, int t) {
  const float4* bias = reinterpret_cast<const float4*>(problem.bias + image * kHidden1 + 16 * t);
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float4 value = bias[i];
    sum[4 * i] = value.x, sum[4 * i + 1] = value.y, sum[4 * i + 2] = value.z, sum[4 * i + 3] = value.w;
  }
  for (int j = 0; j < problem.count; ++j) {
    const Corners from = corners(problem, problem.products[j], image, pixel);
    const T* data = static_cast<const T*>(problem.products[j].data) + 16 * t;
    add_row(sum, data + from.top_left, from.weights[0]);
    add_row(sum, data + from.top_right, from.weights[1]);
    add_row(sum, data + from.bottom_left, from.weights[2]);
    add_row(sum, data + from.bottom_right, from.weights[3]);
  }
}

// Over the eight lanes that hold the same columns.
__device__ __forceinline__ float sum_over_rows(float value) {
  for (int step = 4; step < 32; step *= 2) value += __shfl_xor_sync(kAll, value, step);
  return value;
}

template <typename T, bool Backward>
__global__ void __launch_bounds__(kThreads, 2)
    tensor_core_kernel(const Problem problem, const T* __restrict__ grad_density, T* __restrict__ out,
                       float* __restrict__ partials) {
  constexpr int kFine = kTile * kPitch1 > kDepth * kPitchPixels ? kTile * kPitch1 : kDepth * kPitchPixels;
  __shared__ __align__(16) T fine[kFine];  // [pixel][channel] or [channel][pixel]; backward: then hidden1 [pixel][position]
  __shared__ __align__(16) T fine_weight[kDepth * kPitch1];               // [channel][position]
  __shared__ __align__(16) T weight2[kHidden1 * kPitch2];                 // [position][hidden2]
  __shared__ __align__(16) T grad2[Backward ? kTile * kPitch2 : 1];       // [pixel][hidden2]
  __shared__ float bias2[kHidden2], weight3[kHidden2];
  // A warp's sums; in registers, 33 more of them would leave one block per multiprocessor.
  __shared__ float sums[Backward ? kWarps * kSums : 1];  // [warp][kSums]

  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, t = lane % 4;
  const int row8 = lane % 8, low = lane / 8 % 2 * 8, high = lane / 16 * 8;  // what load_matrices' addresses are made of
  const int pixels = problem.height * problem.width, parts = (pixels + kPart - 1) / kPart;
  const int64_t image = blockIdx.x / parts;
  const int begin = blockIdx.x % parts * kPart, end = begin + kPart < pixels ? begin + kPart : pixels;

  const bool channels_last = problem.fine_channel == 1;
  const T* source = static_cast<const T*>(problem.fine) + image * problem.fine_batch;
  const T* source_weight = static_cast<const T*>(problem.fine_weight) + image * problem.fine_weight_batch;
  const int64_t source_pitch = channels_last ? problem.fine_pixel : problem.fine_channel;
  const bool vectors = source_pitch % 8 == 0 && problem.fine_batch % 8 == 0 &&
                       reinterpret_cast<uintptr_t>(problem.fine) % 16 == 0;

  for (int i = threadIdx.x; i < kHidden2 * kHidden1; i += kThreads)
    weight2[position_of(i % kHidden1) * kPitch2 + i / kHidden1] = narrow<T>(problem.weight2[i]);
  if (threadIdx.x < kHidden2) {
    bias2[threadIdx.x] = problem.bias2[threadIdx.x];
    weight3[threadIdx.x] = problem.weight3[threadIdx.x];
  }
  float weight2_sum[2][4] = {};
  if constexpr (Backward)
    for (int i = threadIdx.x; i < kWarps * kSums; i += kThreads) sums[i] = 0.0f;
  __syncthreads();

  for (int first = begin; first < end; first += kTile) {
    const int pixel0 = first + warp * 16 + g, pixel1 = pixel0 + 8;
    float hidden[8][4];  // C fragments of hidden1, [column tile j]
    {
      float sum0[16], sum1[16];
      gather<T>(sum0, problem, image, pixel0 < pixels ? pixel0 : pixels - 1, t);
      gather<T>(sum1, problem, image, pixel1 < pixels ? pixel1 : pixels - 1, t);
#pragma unroll
      for (int j = 0; j < 8; ++j)
        hidden[j][0] = sum0[2 * j], hidden[j][1] = sum0[2 * j + 1], hidden[j][2] = sum1[2 * j],
        hidden[j][3] = sum1[2 * j + 1];
    }
    for (int start = 0; start < problem.channels; start += kDepth) {
      const int valid = problem.channels - start < kDepth ? problem.channels - start : kDepth;
      const int depth = (valid + 15) / 16 * 16;
      __syncthreads();  // the previous tile or chunk has been read
      if (channels_last)
        stage(fine, kPitch1, source + first * source_pitch + start, source_pitch, kTile, depth, pixels - first, valid,
              vectors);
      else
        stage(fine, kPitchPixels, source + start * source_pitch + first, source_pitch, depth, kTile, valid,
              pixels - first, vectors);
      if (first == begin || problem.channels > kDepth)
        for (int i = threadIdx.x; i < depth * kHidden1 / 2; i += kThreads) {
          const int c = i / (kHidden1 / 2), channel = i % (kHidden1 / 2) * 2;
          const uint32_t pair =
              c < valid ? *reinterpret_cast<const uint32_t*>(source_weight + (start + c) * kHidden1 + channel) : 0u;
          *reinterpret_cast<uint32_t*>(fine_weight + c * kPitch1 + position_of(channel)) = pair;
        }
      __syncthreads();
      for (int k = 0; k < depth; k += 16) {
        uint32_t a[4], b[4];
        if (channels_last)
          load_matrices<false>(a, fine + (warp * 16 + row8 + low) * kPitch1 + k + high);
        else
          load_matrices<true>(a, fine + (k + row8 + high) * kPitchPixels + warp * 16 + low);
#pragma unroll
        for (int j = 0; j < 8; j += 2) {
          load_matrices<true>(b, fine_weight + (k + row8 + low) * kPitch1 + j * 8 + high);
          multiply_add<T>(hidden[j], a, b[0], b[1]);
          multiply_add<T>(hidden[j + 1], a, b[2], b[3]);
        }
      }
    }

    uint32_t rounded[4][4];  // hidden1 after ReLU as A fragments, [16 positions]
#pragma unroll
    for (int j = 0; j < 8; ++j) {
      rounded[j / 2][j % 2 * 2] = pack<T>(relu(hidden[j][0]), relu(hidden[j][1]));
      rounded[j / 2][j % 2 * 2 + 1] = pack<T>(relu(hidden[j][2]), relu(hidden[j][3]));
    }
    float hidden2[4][4];
#pragma unroll
    for (int j = 0; j < 4; ++j)
      hidden2[j][0] = hidden2[j][2] = bias2[8 * j + 2 * t], hidden2[j][1] = hidden2[j][3] = bias2[8 * j + 2 * t + 1];
#pragma unroll
    for (int k = 0; k < 4; ++k)
#pragma unroll
      for (int j = 0; j < 4; j += 2) {
        uint32_t b[4];
        load_matrices<true>(b, weight2 + (k * 16 + row8 + low) * kPitch2 + j * 8 + high);
        multiply_add<T>(hidden2[j], rounded[k], b[0], b[1]);
        multiply_add<T>(hidden2[j + 1], rounded[k], b[2], b[3]);
      }

    if constexpr (!Backward) {
      float sum0 = 0.0f, sum1 = 0.0f;
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        const float weight = weight3[i / 2 * 8 + 2 * t + i % 2];
        sum0 += weight * relu(hidden2[i / 2][i % 2]);
        sum1 += weight * relu(hidden2[i / 2][2 + i % 2]);
      }
      for (int step = 1; step < 4; step *= 2) {
        sum0 += __shfl_xor_sync(kAll, sum0, step);
        sum1 += __shfl_xor_sync(kAll, sum1, step);
      }
      const int pixel = t == 0 ? pixel0 : pixel1;
      if (t < 2 && pixel < pixels) out[image * pixels + pixel] = narrow<T>((t == 0 ? sum0 : sum1) + problem.bias3[0]);
    } else {
      const float grad0 = pixel0 < pixels ? widen(grad_density[image * pixels + pixel0]) : 0.0f;
      const float grad1 = pixel1 < pixels ? widen(grad_density[image * pixels + pixel1]) : 0.0f;
      float* bias2_sum = sums + warp * kSums;
      float* weight3_sum = bias2_sum + kHidden2;
      float* bias_sum = weight3_sum + kHidden2;
      const float grad_total = sum_over_rows(grad0 + grad1);
      if (lane == 0) bias_sum[kHidden1] += grad_total;
      uint32_t left[2][4];  // gradient at hidden2 before its ReLU as A fragments
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        float grad[4], value[4];
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          value[i] = relu(hidden2[j][i]);
          grad[i] = relu_gradient((i < 2 ? grad0 : grad1) * weight3[8 * j + 2 * t + i % 2], value[i]);
        }
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          const float bias2_add = sum_over_rows(grad[e] + grad[2 + e]);
          const float weight3_add = sum_over_rows(grad0 * value[e] + grad1 * value[2 + e]);
          if (g == 0) bias2_sum[8 * j + 2 * t + e] += bias2_add, weight3_sum[8 * j + 2 * t + e] += weight3_add;
        }
        left[j / 2][j % 2 * 2] = pack<T>(grad[0], grad[1]);
        left[j / 2][j % 2 * 2 + 1] = pack<T>(grad[2], grad[3]);
      }

      // grad_hidden = ReLU'(hidden1) * (gradient at hidden2) weight2
      float grad[8][4] = {};
#pragma unroll
      for (int k = 0; k < 2; ++k)
#pragma unroll
        for (int j = 0; j < 8; j += 2) {
          uint32_t b[4];
          load_matrices<false>(b, weight2 + (j * 8 + row8 + high) * kPitch2 + k * 16 + low);
          multiply_add<T>(grad[j], left[k], b[0], b[1]);
          multiply_add<T>(grad[j + 1], left[k], b[2], b[3]);
        }
      uint32_t words[2][8];
#pragma unroll
      for (int j = 0; j < 8; ++j) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const float2 value = unpack<T>(rounded[j / 2][j % 2 * 2 + half]);
          grad[j][2 * half] = relu_gradient(grad[j][2 * half], value.x);
          grad[j][2 * half + 1] = relu_gradient(grad[j][2 * half + 1], value.y);
          words[half][j] = pack<T>(grad[j][2 * half], grad[j][2 * half + 1]);
        }
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          const float bias_add = sum_over_rows(grad[j][e] + grad[j][2 + e]);
          if (g == 0) bias_sum[16 * t + 2 * j + e] += bias_add;
        }
      }
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int pixel = half == 0 ? pixel0 : pixel1;
        if (pixel >= pixels) continue;
        uint4* target = reinterpret_cast<uint4*>(out + (image * pixels + pixel) * kHidden1 + 16 * t);
        target[0] = make_uint4(words[half][0], words[half][1], words[half][2], words[half][3]);
        target[1] = make_uint4(words[half][4], words[half][5], words[half][6], words[half][7]);
      }

      // weight2's gradient: (gradient at hidden2)^T hidden1 over the tile's pixels; a warp has one column tile.
      __syncthreads();  // fine has been read
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int row = warp * 16 + g + 8 * half;
#pragma unroll
        for (int j = 0; j < 8; ++j)
          *reinterpret_cast<uint32_t*>(fine + row * kPitch1 + 8 * j + 2 * t) = rounded[j / 2][j % 2 * 2 + half];
#pragma unroll
        for (int j = 0; j < 4; ++j)
          *reinterpret_cast<uint32_t*>(grad2 + row * kPitch2 + 8 * j + 2 * t) = left[j / 2][j % 2 * 2 + half];
      }
      __syncthreads();
#pragma unroll
      for (int k = 0; k < kTile; k += 32) {
        uint32_t b[4], a[4];
        load_matrices<true>(b, fine + (k + lane) * kPitch1 + warp * 8);
#pragma unroll
        for (int step = 0; step < 2; ++step)
#pragma unroll
          for (int m = 0; m < 2; ++m) {
            load_matrices<true>(a, grad2 + (k + step * 16 + row8 + high) * kPitch2 + m * 16 + low);
            multiply_add<T>(weight2_sum[m], a, b[2 * step], b[2 * step + 1]);
          }
      }
    }
  }

  if constexpr (Backward) {
    float* partial = partials + int64_t(blockIdx.x) * (kHidden2 * kHidden1 + kSums);
#pragma unroll
    for (int m = 0; m < 2; ++m)
#pragma unroll
      for (int i = 0; i < 4; ++i)
        partial[(m * 16 + g + i / 2 * 8) * kHidden1 + 16 * t + 2 * warp + i % 2] = weight2_sum[m][i];
    // The last tile's barriers lie between the warps' sums and this.
    for (int i = threadIdx.x; i < kSums; i += kThreads) {
      float sum = 0.0f;
      for (int w = 0; w < kWarps; ++w) sum += sums[w * kSums + i];
      partial[kHidden2 * kHidden1 + i] = sum;
    }
  }
}

// ---- float32 -------------------------------------------------------------------------------------------------------
//
// 128 threads, 64 pixels; a thread has 8 pixels x 4 channels of hidden1 and 8 pixels x 2 channels of hidden2.

constexpr int kThreads32 = 128, kTile32 = 64, kDepth32 = 32;
constexpr int kPitch32 = kTile32 + 4;           // of shared rows of pixels, still 16-byte aligned
constexpr int kPitchWeight2 = kHidden2 + 1;     // odd: lanes that read one column of many rows use different banks

struct Eight {
  float value[8];
};

__device__ __forceinline__ Eight load_eight(const float* from) {
  const float4 a = reinterpret_cast<const float4*>(from)[0], b = reinterpret_cast<const float4*>(from)[1];
  return Eight{{a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w}};
}

__device__ __forceinline__ void store_eight(float* to, const float (&from)[8]) {
  reinterpret_cast<float4*>(to)[0] = make_float4(from[0], from[1], from[2], from[3]);
  reinterpret_cast<float4*>(to)[1] = make_float4(from[4], from[5], from[6], from[7]);
}

template <bool Backward>
__global__ void __launch_bounds__(kThreads32) float_kernel(const Problem problem, const float* __restrict__ grad_density,
                                                           float* __restrict__ out, float* __restrict__ partials) {
  __shared__ __align__(16) float hidden1[kHidden1 * kPitch32];  // [channel][pixel]; before: fine and its weights
  __shared__ __align__(16) float weight2[kHidden1 * kPitchWeight2];  // [hidden1][hidden2]
  __shared__ __align__(16) float grad2[Backward ? kHidden2 * kPitch32 : 1];  // [channel][pixel]
  float* fine = hidden1;                                    // [channel][pixel]
  float* fine_weight = hidden1 + kDepth32 * kPitch32;       // [channel][hidden1]
  static_assert(kDepth32 * (kPitch32 + kHidden1) <= kHidden1 * kPitch32, "fine and its weights fit");

  const int tx = threadIdx.x % 16, ty = threadIdx.x / 16;
  const int pixels = problem.height * problem.width, parts = (pixels + kPart - 1) / kPart;
  const int64_t image = blockIdx.x / parts;
  const int begin = blockIdx.x % parts * kPart, end = begin + kPart < pixels ? begin + kPart : pixels;
  const float* source = static_cast<const float*>(problem.fine) + image * problem.fine_batch;
  const float* source_weight = static_cast<const float*>(problem.fine_weight) + image * problem.fine_weight_batch;

  for (int i = threadIdx.x; i < kHidden2 * kHidden1; i += kThreads32)
    weight2[i % kHidden1 * kPitchWeight2 + i / kHidden1] = problem.weight2[i];
  const float weight3[2] = {problem.weight3[2 * tx], problem.weight3[2 * tx + 1]};
  const float4 bias = *reinterpret_cast<const float4*>(problem.bias + image * kHidden1 + 4 * tx);
  // Of rows ty * 4 + r and columns tx + 16 c of weight2, and of the thread's own channels.
  float weight2_sum[4][4] = {}, bias2_sum[2] = {}, weight3_sum[2] = {}, bias_sum[4] = {}, bias3_sum = 0.0f;

  for (int first = begin; first < end; first += kTile32) {
    float hidden[4][8];  // [channel 4 tx + c][pixel 8 ty + i]
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const int pixel = first + 8 * ty + i < pixels ? first + 8 * ty + i : pixels - 1;
      float4 sum = bias;
      for (int j = 0; j < problem.count; ++j) {
        const Corners from = corners(problem, problem.products[j], image, pixel);
        const float* data = static_cast<const float*>(problem.products[j].data) + 4 * tx;
        const int64_t offsets[4] = {from.top_left, from.top_right, from.bottom_left, from.bottom_right};
#pragma unroll
        for (int corner = 0; corner < 4; ++corner) {
          const float4 value = *reinterpret_cast<const float4*>(data + offsets[corner]);
          const float weight = from.weights[corner];
          sum.x += weight * value.x, sum.y += weight * value.y, sum.z += weight * value.z, sum.w += weight * value.w;
        }
      }
      hidden[0][i] = sum.x, hidden[1][i] = sum.y, hidden[2][i] = sum.z, hidden[3][i] = sum.w;
    }
    for (int start = 0; start < problem.channels; start += kDepth32) {
      const int depth = problem.channels - start < kDepth32 ? problem.channels - start : kDepth32;
      __syncthreads();  // the previous tile or chunk has been read
      for (int i = threadIdx.x; i < depth * kTile32; i += kThreads32) {
        // Neighbouring threads read neighbouring addresses: pixels, or channels in channels_last.
        const bool channels_last = problem.fine_channel == 1;
        const int c = channels_last ? i % depth : i / kTile32, p = channels_last ? i / depth : i % kTile32;
        fine[c * kPitch32 + p] =
            first + p < pixels ? source[(start + c) * problem.fine_channel + (first + p) * problem.fine_pixel] : 0.0f;
      }
      for (int i = threadIdx.x; i < depth * kHidden1; i += kThreads32)
        fine_weight[i] = source_weight[start * kHidden1 + i];
      __syncthreads();
      for (int k = 0; k < depth; ++k) {
        const Eight a = load_eight(fine + k * kPitch32 + 8 * ty);
        const float4 b = *reinterpret_cast<const float4*>(fine_weight + k * kHidden1 + 4 * tx);
        const float weights[4] = {b.x, b.y, b.z, b.w};
#pragma unroll
        for (int c = 0; c < 4; ++c)
#pragma unroll
          for (int i = 0; i < 8; ++i) hidden[c][i] += weights[c] * a.value[i];
      }
    }

    __syncthreads();  // fine has been read, and hidden1 of the previous tile
#pragma unroll
    for (int c = 0; c < 4; ++c) {
#pragma unroll
      for (int i = 0; i < 8; ++i) hidden[c][i] = relu(hidden[c][i]);
      store_eight(hidden1 + (4 * tx + c) * kPitch32 + 8 * ty, hidden[c]);
    }
    __syncthreads();
    float hidden2[2][8];
#pragma unroll
    for (int c = 0; c < 2; ++c) {
      const float bias2 = problem.bias2[2 * tx + c];
#pragma unroll
      for (int i = 0; i < 8; ++i) hidden2[c][i] = bias2;
    }
    for (int k = 0; k < kHidden1; ++k) {
      const Eight a = load_eight(hidden1 + k * kPitch32 + 8 * ty);
#pragma unroll
      for (int c = 0; c < 2; ++c) {
        const float weight = weight2[k * kPitchWeight2 + 2 * tx + c];
#pragma unroll
        for (int i = 0; i < 8; ++i) hidden2[c][i] += weight * a.value[i];
      }
    }

    if constexpr (!Backward) {
      float sum[8];
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        sum[i] = weight3[0] * relu(hidden2[0][i]) + weight3[1] * relu(hidden2[1][i]);
        for (int step = 1; step < 16; step *= 2) sum[i] += __shfl_xor_sync(kAll, sum[i], step);
        const int pixel = first + 8 * ty + i;
        if (tx == i && pixel < pixels) out[image * pixels + pixel] = sum[i] + problem.bias3[0];
      }
    } else {
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
        store_eight(grad2 + (2 * tx + c) * kPitch32 + 8 * ty, grad);
      }
      __syncthreads();

      // grad_hidden = ReLU'(hidden1) * (gradient at hidden2) weight2
      float grad[4][8] = {};
      for (int k = 0; k < kHidden2; ++k) {
        const Eight a = load_eight(grad2 + k * kPitch32 + 8 * ty);
#pragma unroll
        for (int c = 0; c < 4; ++c) {
          const float weight = weight2[(4 * tx + c) * kPitchWeight2 + k];
#pragma unroll
          for (int i = 0; i < 8; ++i) grad[c][i] += weight * a.value[i];
        }
      }
#pragma unroll
      for (int i = 0; i < 8; ++i) {
#pragma unroll
        for (int c = 0; c < 4; ++c) {
          grad[c][i] = relu_gradient(grad[c][i], hidden[c][i]);
          bias_sum[c] += grad[c][i];
        }
        const int pixel = first + 8 * ty + i;
        if (pixel < pixels)
          *reinterpret_cast<float4*>(out + (image * pixels + pixel) * kHidden1 + 4 * tx) =
              make_float4(grad[0][i], grad[1][i], grad[2][i], grad[3][i]);
      }

      // weight2's gradient: (gradient at hidden2)^T hidden1 over the tile's pixels.
      for (int p = 0; p < kTile32; p += 4) {
        float4 right[4];
#pragma unroll
        for (int c = 0; c < 4; ++c) right[c] = *reinterpret_cast<const float4*>(hidden1 + (tx + 16 * c) * kPitch32 + p);
#pragma unroll
        for (int r = 0; r < 4; ++r) {
          const float4 a = *reinterpret_cast<const float4*>(grad2 + (ty * 4 + r) * kPitch32 + p);
#pragma unroll
          for (int c = 0; c < 4; ++c)
            weight2_sum[r][c] += a.x * right[c].x + a.y * right[c].y + a.z * right[c].z + a.w * right[c].w;
        }
      }
    }
  }

  if constexpr (Backward) {
    float* partial = partials + int64_t(blockIdx.x) * (kHidden2 * kHidden1 + kSums);
#pragma unroll
    for (int r = 0; r < 4; ++r)
#pragma unroll
      for (int c = 0; c < 4; ++c) partial[(ty * 4 + r) * kHidden1 + tx + 16 * c] = weight2_sum[r][c];
    __syncthreads();  // hidden1 has been read
    float* mine = hidden1 + ty * kSums;
    mine[2 * tx] = bias2_sum[0], mine[2 * tx + 1] = bias2_sum[1];
    mine[kHidden2 + 2 * tx] = weight3_sum[0], mine[kHidden2 + 2 * tx + 1] = weight3_sum[1];
#pragma unroll
    for (int c = 0; c < 4; ++c) mine[2 * kHidden2 + 4 * tx + c] = bias_sum[c];
    if (tx == 0) mine[kSums - 1] = bias3_sum;
    __syncthreads();
    for (int i = threadIdx.x; i < kSums; i += kThreads32) {
      float sum = 0.0f;
      for (int y = 0; y < kThreads32 / 16; ++y) sum += hidden1[y * kSums + i];
      partial[kHidden2 * kHidden1 + i] = sum;
    }
  }
}

// ---- The adjoint of bilinear upsampling: a thread gathers 16 bytes of one source pixel -----------------------------

template <typename T>
__global__ void __launch_bounds__(256) downsample_kernel(const T* __restrict__ grad, T* __restrict__ out, int64_t count,
                                                         int vectors, int height, int width, int rows, int columns) {
  constexpr int kValues = 16 / sizeof(T);
  const int64_t index = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (index >= count) return;
  const int64_t pixel = index / vectors, image = pixel / (int64_t(rows) * columns);
  const int column = int(pixel % columns), row = int(pixel / columns % rows);
  const Reach down = bilinear_reach(row, rows, height), across = bilinear_reach(column, columns, width);
  const uint4* source = reinterpret_cast<const uint4*>(grad) + image * height * width * vectors + index % vectors;
  float sum[kValues] = {};
  for (int y = down.begin; y < down.end; ++y) {
    const float by_row = bilinear_weight(y, row, rows, height);
    if (by_row == 0.0f) continue;
    for (int x = across.begin; x < across.end; ++x) {
      const float weight = by_row * bilinear_weight(x, column, columns, width);
      const uint4 value = source[(int64_t(y) * width + x) * vectors];
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

}  // namespace

// ---- Launches ------------------------------------------------------------------------------------------------------

#ifdef __CUDACC__
namespace {

unsigned blocks_of(const Problem& problem) {
  return unsigned(problem.batch * ((int64_t(problem.height) * problem.width + kPart - 1) / kPart));
}

template <bool Backward>
int launch(const Problem& problem, const void* grad_density, void* out, float* partials, void* stream) {
  const unsigned blocks = blocks_of(problem);
  const cudaStream_t on = static_cast<cudaStream_t>(stream);
  if (blocks == 0) return 0;
  if (problem.dtype == DType::f32)
    float_kernel<Backward><<<blocks, kThreads32, 0, on>>>(problem, static_cast<const float*>(grad_density),
                                                          static_cast<float*>(out), partials);
  else if (problem.dtype == DType::bf16)
    tensor_core_kernel<bf16, Backward><<<blocks, kThreads, 0, on>>>(problem, static_cast<const bf16*>(grad_density),
                                                                    static_cast<bf16*>(out), partials);
  else
    tensor_core_kernel<f16, Backward><<<blocks, kThreads, 0, on>>>(problem, static_cast<const f16*>(grad_density),
                                                                   static_cast<f16*>(out), partials);
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
  with_narrow_dtype(args.dtype, [&](auto type) {
    launch_downsample<decltype(type)>(args, static_cast<cudaStream_t>(stream));
  });
  return cudaGetLastError();
}

#endif  // __CUDACC__

}  // namespace dkpnet::cuda
