// A tile of pixels goes through the whole tail while it is in the cache: 64 pixels x 64 channels are 16 KiB. All four
// matrix products (fine branch, 64 -> 32, its two gradients) are one register-blocked loop, `multiply`.
#include "cpu/head.h"

#include <type_traits>

#include "cpu/parallel.h"
#include "cpu/vector.h"

namespace dkpnet::cpu::DKPNET_ISA {

using namespace dkpnet::head;

constexpr int kRows = kRegisters / 4, kColumns = 2;  // of vectors whose sums stay in registers
constexpr int kTile = 64;                            // pixels; a multiple of kRows, and kPart is a multiple of it
constexpr int kChunk = kTile;                        // channels of the fine branch at a time
constexpr int kSide = 128;                           // widths of the hidden layers: multiples of 16 up to this
constexpr int kAlign = 64;
static const float kZeros[kSide] = {};

static int smaller(int a, int b) { return a < b ? a : b; }

// out[r, c] = start[r, c] + sum_k a[r, k] * b[k, c] for kRows rows and Columns vectors of columns; ReLU of it if asked.
template <int Columns>
static inline void multiply_block(int depth, const float* a, int64_t a_row, int64_t a_depth, const float* b,
                                  const float* start, int64_t start_row, float* out, int64_t width, bool rectify) {
  Vector sum[kRows][Columns];
  DKPNET_UNROLL for (int r = 0; r < kRows; ++r) DKPNET_UNROLL for (int c = 0; c < Columns; ++c) sum[r][c] =
      load(start + r * start_row + c * kLanes);
  for (int k = 0; k < depth; ++k) {
    Vector right[Columns];
    DKPNET_UNROLL for (int c = 0; c < Columns; ++c) right[c] = load(b + k * width + c * kLanes);
    DKPNET_UNROLL for (int r = 0; r < kRows; ++r) {
      const float left = a[r * a_row + k * a_depth];
      DKPNET_UNROLL for (int c = 0; c < Columns; ++c) sum[r][c] += left * right[c];
    }
  }
  DKPNET_UNROLL for (int r = 0; r < kRows; ++r) DKPNET_UNROLL for (int c = 0; c < Columns; ++c) {
    if (rectify) sum[r][c] = sum[r][c] < 0.0f ? Vector{} : sum[r][c];
    store(out + r * width + c * kLanes, sum[r][c]);
  }
}

// The same for `rows` (a multiple of kRows) and `width` columns (a multiple of 16); b and out are dense rows. The rows
// of `start` are start_row apart: 0 repeats one row.
static void multiply(int rows, int width, int depth, const float* a, int64_t a_row, int64_t a_depth, const float* b,
                     const float* start, int64_t start_row, float* out, bool rectify = false) {
  for (int column = 0; column < width; column += kColumns * kLanes)
    for (int row = 0; row < rows; row += kRows) {
      const auto block = width - column < kColumns * kLanes ? multiply_block<1> : multiply_block<kColumns>;
      block(depth, a + row * a_row, a_row, a_depth, b + column, start + row * start_row + column, start_row,
            out + row * width + column, width, rectify);
    }
}

// Pixels [first, first + pixels) of one image, and their intermediate results.
struct Tile {
  int64_t image;
  int first, pixels;
  alignas(kAlign) float hidden1[kTile * kSide];  // [pixel][channel], after ReLU
  alignas(kAlign) float hidden2[kTile * kSide];
  // Sums of the backward pass over the part so far. In double: a long float sum loses accuracy, and these are few.
  alignas(kAlign) double sums[3 * kSide + 1];
};

// tile.hidden1 = bias + the products, interpolated, a run of pixels of one row at a time. The columns that a run reads
// only go up, so each is interpolated between its two rows once and stays in a register.
template <typename T>
static void gather(const Problem& problem, Tile& tile) {
  const int width = problem.hidden1;
  const float* bias = problem.bias + tile.image * width;
  for (int i = 0, run; i < tile.pixels; i += run) {
    const int y = (tile.first + i) / problem.width, x = (tile.first + i) % problem.width;
    run = smaller(problem.width - x, tile.pixels - i);
    float* out = tile.hidden1 + i * width;
    for (int k = 0; k < run && problem.count == 0; ++k) memcpy(out + k * width, bias, width * sizeof(float));
    for (int j = 0; j < problem.count; ++j) {
      const Product& product = problem.products[j];
      const Tap row = bilinear_tap(y, product.height, problem.height);
      const int64_t line = int64_t(product.width) * width;
      const T* top = static_cast<const T*>(product.data) + (tile.image * product.height + row.low) * line;
      const T* bottom = top + (row.high - row.low) * line;
      Tap taps[kTile];
      for (int k = 0; k < run; ++k) taps[k] = bilinear_tap(x + k, product.width, problem.width);
      for (int at = taps[0].low * width; at < (taps[run - 1].high + 1) * width; at += 64 / int(sizeof(T)))
        __builtin_prefetch(bottom + line + at);  // the row that is read next
      for (int c = 0; c < width; c += kLanes) {
        const auto column = [&](int at) {
          const int64_t offset = int64_t(at) * width + c;
          return (1.0f - row.weight) * load(top + offset) + row.weight * load(bottom + offset);
        };
        Tap last{-1, -1, 0.0f};
        Vector left{}, right{};
        const Vector start = load(bias + c);
        for (int k = 0; k < run; ++k) {
          const Tap tap = taps[k];
          if (tap.low != last.low) {
            left = tap.low == last.high ? right : column(tap.low);
            right = column(tap.high);
            last = tap;
          }
          const Vector before = j == 0 ? start : load(out + k * width + c);
          store(out + k * width + c, before + (1.0f - tap.weight) * left + tap.weight * right);
        }
      }
    }
  }
  // The rows beyond the last pixel of a tile are not used; they only have to be finite.
  for (int i = tile.pixels * width; i < kTile * width; ++i) tile.hidden1[i] = 0.0f;
}

template <typename T>
static inline void widen_row(const T* __restrict from, int count, float* __restrict to) {
#pragma omp simd
  for (int i = 0; i < count; ++i) to[i] = widen(from[i]);
}

// tile.hidden1 = ReLU(tile.hidden1 + fine_weight^T fine)
template <typename T>
static void multiply_fine(const Problem& problem, Tile& tile) {
  alignas(kAlign) float values[kChunk * kTile];
  alignas(kAlign) float weights[kChunk * kSide];  // [channel][hidden1]
  const int width = problem.hidden1;
  const int64_t by_pixel = problem.fine_pixel, by_channel = problem.fine_channel;
  const T* fine = static_cast<const T*>(problem.fine) + tile.image * problem.fine_batch + tile.first * by_pixel;
  const T* weight = static_cast<const T*>(problem.fine_weight) + tile.image * problem.fine_weight_batch;
  for (int start = 0; start < problem.channels; start += kChunk) {
    const int channels = smaller(problem.channels - start, kChunk);
    const T* source = fine + start * by_channel;
    // [channel][pixel], or [pixel][channel] where the channels are dense.
    const bool by_rows = by_channel == 1;
    const int rows = by_rows ? tile.pixels : channels, length = by_rows ? channels : tile.pixels;
    const int64_t apart = by_rows ? by_pixel : by_channel;
    const float* left = values;
    int64_t left_row = kTile;
    if (std::is_same<T, float>::value && by_rows && tile.pixels == kTile) {
      left = reinterpret_cast<const float*>(source), left_row = by_pixel;
    } else {
      memset(values, 0, sizeof values * (tile.pixels < kTile));  // pixels beyond the last only have to be finite
      for (int r = 0; r < rows; ++r) {
        const T* row = source + r * apart;
        // The next tile's: so many streams are more than the processor foresees.
        for (int i = 0; i < kTile && !by_rows; i += 64 / int(sizeof(T))) __builtin_prefetch(row + kTile + i);
        widen_row(row, length, values + r * kTile);
      }
    }
    widen_row(weight + int64_t(start) * width, channels * width, weights);
    multiply(kTile, width, channels, left, by_rows ? left_row : 1, by_rows ? 1 : left_row, weights, tile.hidden1, width,
             tile.hidden1, start + channels == problem.channels);
  }
}

// Calls body(tile, part) for the tiles of every part of every image, once both hidden layers are there; one thread
// computes a part, in order.
template <typename T, typename Body>
static void for_each_tile(const Problem& problem, int threads, const Body& body) {
  const int pixels = problem.height * problem.width, width1 = problem.hidden1, width2 = problem.hidden2;
  const int64_t parts = (pixels + kPart - 1) / kPart;
  parallel_for(problem.batch * parts, 1, threads, [&](int64_t begin, int64_t end) {
    alignas(kAlign) float transposed[kSide * kSide];  // weight2 as [hidden1, hidden2]
    for (int r = 0; r < width2; ++r)
      for (int c = 0; c < width1; ++c) transposed[c * width2 + r] = problem.weight2[r * width1 + c];
    Tile tile;
    for (int64_t part = begin; part < end; ++part) {
      tile.image = part / parts;
      memset(tile.sums, 0, sizeof tile.sums);
      const int start = int(part % parts) * kPart, stop = smaller(start + kPart, pixels);
      for (tile.first = start; tile.first < stop; tile.first += kTile) {
        tile.pixels = smaller(kTile, stop - tile.first);
        gather<T>(problem, tile);
        if (problem.channels > 0)
          multiply_fine<T>(problem, tile);
        else
          for (int i = 0; i < kTile * width1; ++i) tile.hidden1[i] = relu(tile.hidden1[i]);
        multiply(kTile, width2, width1, tile.hidden1, width1, 1, transposed, problem.bias2, 0, tile.hidden2, true);
        body(tile, part);
      }
    }
  });
}

static void forward(const Forward& problem, int threads) {
  with_narrow_dtype(problem.dtype, [&](auto type) {
    using T = decltype(type);
    T* density = static_cast<T*>(problem.density);
    const int64_t pixels = int64_t(problem.height) * problem.width;
    for_each_tile<T>(problem, threads, [&](const Tile& tile, int64_t) {
      T* out = density + tile.image * pixels + tile.first;
      for (int i = 0; i < tile.pixels; ++i) {
        const float* hidden2 = tile.hidden2 + i * problem.hidden2;
        Vector sum{};
        for (int c = 0; c < problem.hidden2; c += kLanes) sum += load(problem.weight3 + c) * load(hidden2 + c);
        out[i] = narrow<T>(problem.bias3[0] + sum_of_lanes(sum));
      }
    });
  });
}

static void backward(const Backward& problem, int threads) {
  with_narrow_dtype(problem.dtype, [&](auto type) {
    using T = decltype(type);
    const T* grad_density = static_cast<const T*>(problem.grad_density);
    T* grad_hidden = static_cast<T*>(problem.grad_hidden);
    const int width1 = problem.hidden1, width2 = problem.hidden2, size = gradient_size(width1, width2);
    const int64_t pixels = int64_t(problem.height) * problem.width;
    const int64_t parts = (pixels + kPart - 1) / kPart;
    for_each_tile<T>(problem, threads, [&](Tile& tile, int64_t part) {
      alignas(kAlign) float grad1[kTile * kSide], grad2[kTile * kSide];
      double* __restrict bias2 = tile.sums;
      double* __restrict weight3 = bias2 + width2;
      double* __restrict bias = weight3 + width2;
      double* bias3 = bias + width1;
      float* weight2 = problem.partials + part * size;
      if (tile.first == int(part % parts) * kPart) memset(weight2, 0, size * sizeof(float));

      const int64_t start = tile.image * pixels + tile.first;
      for (int i = 0; i < kTile; ++i) {
        const float grad = i < tile.pixels ? widen(grad_density[start + i]) : 0.0f;
        const float* __restrict hidden2 = tile.hidden2 + i * width2;
        float* __restrict out = grad2 + i * width2;
        bias3[0] += grad;
#pragma omp simd
        for (int c = 0; c < width2; ++c) {
          out[c] = relu_gradient(grad * problem.weight3[c], hidden2[c]);
          weight3[c] += grad * hidden2[c];
          bias2[c] += out[c];
        }
      }
      multiply(width2, width1, kTile, grad2, 1, width2, tile.hidden1, weight2, width1, weight2);
      multiply(kTile, width1, width2, grad2, width2, 1, problem.weight2, kZeros, 0, grad1);
      for (int i = 0; i < tile.pixels; ++i) {
        const float* __restrict hidden1 = tile.hidden1 + i * width1;
        const float* __restrict row = grad1 + i * width1;
        T* __restrict out = grad_hidden + (start + i) * width1;
#pragma omp simd
        for (int c = 0; c < width1; ++c) {
          const float grad = relu_gradient(row[c], hidden1[c]);
          bias[c] += grad;
          out[c] = narrow<T>(grad);
        }
      }
      float* __restrict rest = weight2 + width2 * width1;
      for (int i = 0; i < size - width2 * width1; ++i) rest[i] = float(tile.sums[i]);
    });
  });
}

static void downsample(const Downsample& args, int threads) {
  with_narrow_dtype(args.dtype, [&](auto type) {
    using T = decltype(type);
    const T* grad = static_cast<const T*>(args.grad);
    T* out = static_cast<T*>(args.out);
    const int channels = args.channels, height = args.height, width = args.width, rows = args.rows,
              columns = args.columns;
    constexpr int kGroup = 64;  // channels at a time
    parallel_each(args.batch * rows, 1, threads, [&](int64_t index) {
      const int row = int(index % rows);
      const T* image = grad + index / rows * height * width * channels;
      const Span down = bilinear_reach(row, rows, height);
      for (int column = 0; column < columns; ++column) {
        const Span across = bilinear_reach(column, columns, width);
        T* target = out + (index * columns + column) * channels;
        for (int start = 0; start < channels; start += kGroup) {
          const int count = smaller(kGroup, channels - start);
          float sum[kGroup] = {};
          for (int y = down.begin; y < down.end; ++y) {
            const float by_row = bilinear_weight(y, row, rows, height);
            if (by_row == 0.0f) continue;
            for (int x = across.begin; x < across.end; ++x) {
              const float weight = by_row * bilinear_weight(x, column, columns, width);
              const T* __restrict source = image + (int64_t(y) * width + x) * channels + start;
#pragma omp simd
              for (int c = 0; c < count; ++c) sum[c] += weight * widen(source[c]);
            }
          }
          for (int c = 0; c < count; ++c) target[start + c] = narrow<T>(sum[c]);
        }
      }
    });
  });
}

const HeadKernels head{forward, backward, downsample};

}  // namespace dkpnet::cpu::DKPNET_ISA
