// Tiles of matrix products whose sums stay in registers: sum[pixel][channel] += in[pixel][k] * weight[k][channel].
// Only for csrc/cpu/*.cpp, as vector.h.
#pragma once

#include <type_traits>

#include "cpu/vector.h"
#include "math/activation.h"
#ifdef __SSE__
#include <immintrin.h>
#endif

namespace dkpnet::cpu::DKPNET_ISA {

constexpr int kTilePixels = kRegisters == 32 ? 8 : 4;  // pixels of the largest tile,
constexpr int kTileVectors = 3;                        // and its vectors of channels

// A word of 4 bytes is a float, or with pairs two bf16: values k and k + 1 of a pixel, or of a channel's weights.

struct Pair {
  uint16_t first, second;
};
template <bool pairs>
using Word = std::conditional_t<pairs, Pair, float>;

// The pixels' values: word k of block b of pixel p is at[b * block + p * pixel + k], k < count.
template <bool pairs>
struct Source {
  const Word<pairs>* at;
  int64_t pixel, block;
  int blocks, count;
};

typedef float HalfVector __attribute__((vector_size(kVectorBytes / 2)));
typedef float LooseHalfVector __attribute__((vector_size(kVectorBytes / 2), aligned(4), may_alias));
static inline HalfVector load_half(const float* from) { return *reinterpret_cast<const LooseHalfVector*>(from); }
static inline void store_half(float* to, HalfVector x) { *reinterpret_cast<LooseHalfVector*>(to) = x; }

#if defined(__AVX512F__) && defined(__x86_64__)
constexpr bool kHasPairs = true;  // if the processor has AVX512_BF16, which -march=x86-64-v4 does not include
template <typename V>
static inline V plus_dot(V sum, V weight, Pair word) {
  typedef uint32_t Words __attribute__((vector_size(sizeof(V))));
  asm("vdpbf16ps %2, %1, %0" : "+v"(sum) : "v"(weight), "v"(Words{} + bit_cast<uint32_t>(word)));
  return sum;
}
static inline void store_rounded(bf16* to, Vector x) {
  typedef uint16_t Halves __attribute__((vector_size(kVectorBytes / 2)));
  Halves rounded;
  asm("vcvtneps2bf16 %1, %0" : "=v"(rounded) : "v"(x));
  *reinterpret_cast<LooseHalves*>(to) = rounded;
}
#else
constexpr bool kHasPairs = false;
template <typename V>
static inline V plus_dot(V sum, V, Pair) {
  return sum;
}
static inline void store_rounded(bf16* to, Vector x) { store(to, x); }
#endif
template <typename V>
static inline V plus_dot(V sum, V weight, float word) {
  return sum + word * weight;
}
static inline void store_rounded(float* to, Vector x) { store(to, x); }

// x, which the compiler reads once and keeps, where there are 32 registers; otherwise as an operand of every
// multiply-add that it is part of, of which a processor then does no more than it can read vectors.
static inline Vector in_register(Vector x) {
#if defined(__AVX512F__)
  asm("" : "+v"(x));
#endif
  return x;
}

// activated<kind> of every lane. The compilers make four instructions of that, because maximum and minimum of x86
// return their second operand where one is NaN.
template <Activation kind>
static inline Vector bounded(Vector x) {
#if defined(__AVX512F__)
  constexpr __mmask16 all = 0xffff;  // without a mask GCC 12 warns inside of its own header
  if constexpr (kind != Activation::none) x = _mm512_maskz_max_ps(all, Vector{}, x);
  if constexpr (kind == Activation::relu6) x = _mm512_maskz_min_ps(all, Vector{} + 6.0f, x);
  return x;
#elif defined(__AVX__)
  if constexpr (kind != Activation::none) x = _mm256_max_ps(Vector{}, x);
  if constexpr (kind == Activation::relu6) x = _mm256_min_ps(Vector{} + 6.0f, x);
  return x;
#elif defined(__SSE__)
  if constexpr (kind != Activation::none) x = _mm_max_ps(Vector{}, x);
  if constexpr (kind == Activation::relu6) x = _mm_min_ps(Vector{} + 6.0f, x);
  return x;
#else
  return activated<kind>(x);
#endif
}

// Inlined, whatever its size, so that a tile's sums stay in registers (otherwise blocks take 1.5 times as long).
#define DKPNET_INLINED __attribute__((always_inline))

// The sums of P pixels and W channels: whole vectors, and half of one where W is no multiple of kLanes.
template <int P, int W>
struct Tile {
  static constexpr int pixels = P, width = W, V = W / kLanes;
  static constexpr bool half = W % kLanes != 0;
  Vector sum[P][V > 0 ? V : 1];
  HalfVector rest[P];

  // Reads the sums of every pixel; pixel = 0: the same for all.
  DKPNET_INLINED void read(const float* from, int64_t pixel) {
#pragma GCC unroll 8
    for (int p = 0; p < P; ++p) {
#pragma GCC unroll 3
      for (int v = 0; v < V; ++v) sum[p][v] = load(from + p * pixel + v * kLanes);
      if constexpr (half) rest[p] = load_half(from + p * pixel + V * kLanes);
    }
  }
  DKPNET_INLINED void write(float* to, int64_t pixel) const {
#pragma GCC unroll 8
    for (int p = 0; p < P; ++p) {
#pragma GCC unroll 3
      for (int v = 0; v < V; ++v) store(to + p * pixel + v * kLanes, sum[p][v]);
      if constexpr (half) store_half(to + p * pixel + V * kLanes, rest[p]);
    }
  }
  // row: words of the weights from one k to the next.
  template <bool pairs>
  DKPNET_INLINED void add(const Source<pairs>& source, const void* weights, int64_t row) {
    const float* weight = static_cast<const float*>(weights);
    for (int b = 0; b < source.blocks; ++b) {
      const Word<pairs>* in = source.at + b * source.block;
      for (int k = 0; k < source.count; ++k, ++in, weight += row) {
        Vector whole[V > 0 ? V : 1];
        HalfVector part = {};
#pragma GCC unroll 3
        for (int v = 0; v < V; ++v) whole[v] = load(weight + v * kLanes);
        if constexpr (half) part = load_half(weight + V * kLanes);
#pragma GCC unroll 8
        for (int p = 0; p < P; ++p) {
          const Word<pairs> word = in[p * source.pixel];
#pragma GCC unroll 3
          for (int v = 0; v < V; ++v) sum[p][v] = plus_dot(sum[p][v], whole[v], word);
          if constexpr (half) rest[p] = plus_dot(rest[p], part, word);
        }
      }
    }
  }
};

// Calls body(Tile{}) for a tile of P pixels that is `width` channels wide, at most kTileVectors vectors; a
// multiple of 8.
template <int P, typename Body>
static inline void with_tile(int width, const Body& body) {
  constexpr int half = kLanes / 2;
  if constexpr (half >= 8) {
    if (width == half) return body(Tile<P, half>{});
    if (width == 3 * half) return body(Tile<P, 3 * half>{});
    if (width == 5 * half) return body(Tile<P, 5 * half>{});
  }
  if (width == kLanes) return body(Tile<P, kLanes>{});
  if (width == 2 * kLanes) return body(Tile<P, 2 * kLanes>{});
  body(Tile<P, 3 * kLanes>{});
}

// Calls body(tile, pixel) for tiles that cover `count` pixels, `width` channels wide. A last tile that would pass the
// end begins earlier. The body is a lambda that is DKPNET_INLINED.
template <typename Body>
static inline void for_tiles(int count, int width, const Body& body) {
  if (count >= kTilePixels)
    return with_tile<kTilePixels>(width, [&](auto tile) {
      for (int pixel = 0; pixel < count; pixel += kTilePixels)
        body(tile, pixel + kTilePixels < count ? pixel : count - kTilePixels);
    });
  with_tile<1>(width, [&](auto tile) {
    for (int pixel = 0; pixel < count; ++pixel) body(tile, pixel);
  });
}

}  // namespace dkpnet::cpu::DKPNET_ISA
