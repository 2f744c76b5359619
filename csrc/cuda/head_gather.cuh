// The sources of a pixel in the coarser products: the taps of bilinear upsampling.
#pragma once

#include "cuda/runtime.h"
#include "math/head.h"

#ifdef __CUDACC__
#include "cuda/mma.h"
#endif

namespace dkpnet::cuda {
namespace {

using namespace dkpnet::head;

constexpr int kHidden1 = 64, kHidden2 = 32;         // the only widths that are compiled
constexpr int kSums = 2 * kHidden2 + kHidden1 + 1;  // of a part: bias2 | weight3 | bias | bias3
constexpr unsigned kAll = 0xffffffffu;

// Calls body(i, value) for each of the values that 16 bytes hold.
template <typename T, typename Body>
__device__ __forceinline__ void for_each_value(const uint4& vector, const Body& body) {
  const uint32_t words[4] = {vector.x, vector.y, vector.z, vector.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    if constexpr (sizeof(T) == 4) {
      body(i, __uint_as_float(words[i]));
    } else {
      const float2 pair = unpack<T>(words[i]);
      body(2 * i, pair.x);
      body(2 * i + 1, pair.y);
    }
  }
}

// The taps of one pixel in one product. A row is hidden1 channels of one source pixel, counted within the image.
struct Taps {
  uint32_t top;     // twice the row of the upper left source, plus 1 if the right source is another one
  uint32_t bottom;  // the row of the lower left source
  float right, down;
};

__device__ __forceinline__ Taps taps_of(const Problem& problem, const Product& product, int pixel) {
  const int y = pixel / problem.width, x = pixel - y * problem.width;
  const Tap row = bilinear_tap(y, product.height, problem.height);
  const Tap column = bilinear_tap(x, product.width, problem.width);
  return Taps{2u * uint32_t(row.low * product.width + column.low) + uint32_t(column.high - column.low),
              uint32_t(row.high * product.width + column.low), column.weight, row.weight};
}

__device__ __forceinline__ Taps from_lane(const Taps& mine, int lane) {
  return Taps{__shfl_sync(kAll, mine.top, lane), __shfl_sync(kAll, mine.bottom, lane),
              __shfl_sync(kAll, mine.right, lane), __shfl_sync(kAll, mine.down, lane)};
}

// Calls add(i, row, weight) for the four sources of pixels at(0) ... at(Pixels - 1), of the 16 that begin at `first`,
// in every product; `row` is a pointer to hidden1 channels. A warp works on 16 pixels: for two products at a time, a
// lane computes the taps of one pixel, and all lanes read them from it.
template <typename T, int Pixels, typename At, typename Add>
__device__ __forceinline__ void gather(const Problem& problem, int64_t image, int first, const At& at, const Add& add) {
  const int lane = threadIdx.x % 32, last = problem.height * problem.width - 1;
  const int pixel = first + lane % 16 < last ? first + lane % 16 : last;
  for (int pair = 0; pair < problem.count; pair += 2) {
    const int which = pair + lane / 16 < problem.count ? pair + lane / 16 : pair;
    const Taps mine = taps_of(problem, problem.products[which], pixel);
#pragma unroll 1
    for (int j = pair; j < pair + 2 && j < problem.count; ++j) {
      const Product& product = problem.products[j];
      const T* data = static_cast<const T*>(product.data) + image * product.height * product.width * kHidden1;
#pragma unroll
      for (int i = 0; i < Pixels; ++i) {
        const Taps taps = from_lane(mine, (j - pair) * 16 + at(i));
        const T* top = data + int64_t(taps.top / 2) * kHidden1;
        const T* bottom = data + int64_t(taps.bottom) * kHidden1;
        const int next = int(taps.top % 2) * kHidden1;
        const float left = 1.0f - taps.right, up = 1.0f - taps.down;
        add(i, top, up * left);
        add(i, top + next, up * taps.right);
        add(i, bottom, taps.down * left);
        add(i, bottom + next, taps.down * taps.right);
      }
    }
  }
}

}  // namespace
}  // namespace dkpnet::cuda
