// The expanded array is several times as large as the caches, and a network's time goes into writing and reading it. So
// an output row is computed from beginning to end before the next one: of the expanded array there are only the rows
// that the depthwise window covers, in a ring, and of the depthwise result kGroup channels of one row.
//
// Layout of a row in the ring and of the depthwise result: [block of kLanes channels][column][kLanes].
#include "cpu/inverted_residual.h"

#include "cpu/queue.h"
#include "cpu/tile.h"

namespace dkpnet::cpu::DKPNET_ISA {

using namespace inverted_residual;

// A loop that many instances of `rows` share is compiled once.
#define DKPNET_ONCE __attribute__((noinline))

constexpr int kPixels = kTilePixels, kVectors = kTileVectors;
constexpr int kGroup = 48;   // channels that go from expand to project at a time
constexpr int kColumns = 8;  // depthwise results that are summed side by side

static inline int round_up(int value, int unit) { return (value + unit - 1) / unit * unit; }
static inline int smaller(int a, int b) { return a < b ? a : b; }
static inline int larger(int a, int b) { return a > b ? a : b; }

// ---- One thread's memory ----

struct Scratch {
  int columns, mid_columns, groups, out_width;  // columns of a row in the ring and of the depthwise result
  int input_row;                                // floats of an input row that is copied
  int64_t ring_row, ring, mid, sums, input;     // floats
  explicit Scratch(const Forward& f) {
    mid_columns = round_up(f.out_width, kColumns);
    columns = larger((mid_columns - 1) * f.depthwise.stride + f.depthwise.kernel, f.depthwise.left + f.mid_width);
    groups = (f.channels + kGroup - 1) / kGroup;
    out_width = round_up(f.out_channels, kOutUnit);
    ring_row = int64_t(columns) * kGroup;
    ring = ring_row * f.depthwise.kernel * groups;
    mid = int64_t(mid_columns) * kGroup;
    sums = int64_t(mid_columns) * out_width;
    // One column more than the window covers, because pairs read an even number of values.
    const int needed = (f.mid_width - 1) * f.expand.stride + f.expand.kernel + 1;
    input_row = round_up(larger(needed, f.expand.left + f.width) * f.in_channels, kUnit);
    input = int64_t(input_row) * f.expand.kernel;
  }
  int64_t size() const { return ring + mid + (sums + kUnit - 1) / kUnit * kUnit + input; }
};

// ---- Rows of one image ----

struct Image {
  const Forward& f;
  const Scratch scratch;
  int64_t index;
  float *ring, *mid, *sums, *input;
  mutable int copied_row = -2;  // of the expanded array, for which `input` holds copies

  Image(const Forward& forward, int64_t image, float* memory) : f(forward), scratch(forward), index(image) {
    ring = memory;
    mid = ring + scratch.ring;
    input = mid + scratch.mid;
    sums = input + scratch.input;
  }
  int vectors(int group) const { return smaller(kGroup, f.channels - group * kGroup) / kLanes; }
  // Where the ring holds row r of the padded expanded array.
  float* ring_row(int group, int r) const {
    return ring + (int64_t(group) * f.depthwise.kernel + r % f.depthwise.kernel) * scratch.ring_row;
  }
  template <typename T>
  const T* in_row(int y) const {
    return static_cast<const T*>(f.in) + (index * f.height + y) * f.width * f.in_channels;
  }

  // Input row y (zeros where there is none), pixel by pixel, with zeros before and after it.
  template <typename T, typename Value>
  void copy_row(int y, Value* to) const {
    const int channels = f.in_channels, before = f.expand.left * channels;
    const int size = scratch.input_row * int(sizeof(float) / sizeof(Value));
    const int count = y < 0 || y >= f.height ? 0 : f.width * channels;
    memset(to, 0, before * sizeof(Value));
    memset(to + before + count, 0, (size - before - count) * sizeof(Value));
    to += before;
    if (count == 0) return;
    if (!f.planar && !f.table) {
      const T* from = in_row<T>(y);
      if constexpr (sizeof(T) == sizeof(Value))
        memcpy(to, from, count * sizeof(T));
      else
        for (int j = 0; j < count; ++j) to[j] = widen(from[j]);
      return;
    }
    for (int c = 0; c < channels; ++c) {
      // Of a plane one value after the other, else every `channels`-th.
      const int64_t at = f.planar ? ((index * channels + c) * f.height + y) * f.width
                                  : (index * f.height + y) * f.width * channels + c;
      const int step = f.planar ? 1 : channels;
      const T* from = static_cast<const T*>(f.in) + at;
      if (f.table) {
        const uint8_t* bytes = static_cast<const uint8_t*>(f.in) + at;
        const Value* values = static_cast<const Value*>(f.table) + c * 256;
        for (int x = 0; x < f.width; ++x) to[x * channels + c] = values[bytes[x * step]];
      } else if constexpr (sizeof(T) == sizeof(Value)) {
        for (int x = 0; x < f.width; ++x) memcpy(to + x * channels + c, from + x, sizeof(T));
      } else {
        for (int x = 0; x < f.width; ++x) to[x * channels + c] = widen(from[x]);
      }
    }
  }

  // The values that row v of the expanded array is computed from: input rows as they lie, or padded copies of them.
  template <typename T, bool pairs>
  Source<pairs> source(int v) const {
    using Value = std::conditional_t<pairs, bf16, float>;
    constexpr int per_word = pairs ? 2 : 1;
    const Window& w = f.expand;
    const bool padded = f.mid_height != f.height || f.mid_width != f.width;
    const bool copied = f.table || f.planar || w.kernel > 1 || w.stride > 1 || padded || sizeof(T) != sizeof(Value);
    const int channels = f.in_channels;
    if (!copied)
      return {reinterpret_cast<const Word<pairs>*>(in_row<T>(v)), channels / per_word, 0, 1, channels / per_word};
    for (int i = 0; i < w.kernel; ++i) {
      float* row = input + i * scratch.input_row;
      if (v == copied_row + 1 && i < w.kernel - w.stride)
        memcpy(row, row + w.stride * scratch.input_row, scratch.input_row * sizeof(float));
      else
        copy_row<T>(v * w.stride - w.top + i, reinterpret_cast<Value*>(row));
    }
    copied_row = v;
    return {reinterpret_cast<const Word<pairs>*>(input), w.stride * channels / per_word, scratch.input_row, w.kernel,
            (w.kernel * channels + per_word - 1) / per_word};
  }

  // Expands channels [first, first + width) of a group.
  template <bool pairs, Activation kind>
  DKPNET_ONCE void expand_tiles(const Source<pairs>& source, int group, int first, int width, float* to) const {
    const int channel = group * kGroup + first;
    const float* weight = static_cast<const float*>(f.expand_weight) + channel;
    for_tiles(f.mid_width, width, [&](auto tile, int u) DKPNET_INLINED {
      tile.read(f.expand_bias + channel, 0);
      Source<pairs> pixels = source;
      pixels.at += u * source.pixel;
      tile.add(pixels, weight, f.channels);
      float* out = to + (first / kLanes * scratch.columns + u) * kLanes;
#pragma GCC unroll 8
      for (int p = 0; p < tile.pixels; ++p)
#pragma GCC unroll 3
        for (int v = 0; v < tile.V; ++v) store(out + (v * scratch.columns + p) * kLanes, bounded<kind>(tile.sum[p][v]));
    });
  }

  // Fills the ring with row r of the padded expanded array, of every group. The columns of padding are zero already.
  template <typename T, bool pairs, Activation kind>
  void fill(int r) const {
    const int v = r - f.depthwise.top;
    const bool inside = v >= 0 && v < f.mid_height;
    Source<pairs> source{};
    if (inside && f.expand.kernel) source = this->source<T, pairs>(v);
    for (int group = 0; group < scratch.groups; ++group) {
      float* to = ring_row(group, r);
      if (!inside) {
        memset(to, 0, scratch.ring_row * sizeof(float));
        continue;
      }
      to += f.depthwise.left * kLanes;
      const int count = vectors(group);
      if (f.expand.kernel) {
        for (int first = 0; first < count; first += kVectors)
          expand_tiles<pairs, kind>(source, group, first * kLanes, smaller(kVectors, count - first) * kLanes, to);
        continue;
      }
      const T* from = in_row<T>(v) + group * kGroup;
      for (int u = 0; u < f.width; ++u)
        for (int b = 0; b < count; ++b) {
          const int lanes = smaller(kLanes, f.in_channels - group * kGroup - b * kLanes);
          if (lanes > 0)
            store(to + (b * scratch.columns + u) * kLanes, load(from + int64_t(u) * f.in_channels + b * kLanes, lanes));
        }
    }
  }

  // One group of row y of the depthwise result, as `Value`.
  template <int K, int S, Activation kind, typename Value>
  DKPNET_ONCE void filter(int group, int y) const {
    const float* rows[K];
    for (int i = 0; i < K; ++i) rows[i] = ring_row(group, y * S + i);
    for (int b = 0; b < vectors(group); ++b) {
      const int channel = group * kGroup + b * kLanes;
      Value* out = reinterpret_cast<Value*>(mid) + b * scratch.mid_columns * kLanes;
      for (int x = 0; x < scratch.mid_columns; x += kColumns) {
        Vector sum[kColumns];
#pragma GCC unroll 8
        for (int j = 0; j < kColumns; ++j) sum[j] = load(f.taps_bias + channel);
#pragma GCC unroll 5
        for (int i = 0; i < K; ++i) {
          const float* from = rows[i] + (b * scratch.columns + x * S) * kLanes;
          const float* taps = f.taps + i * K * f.channels + channel;
          constexpr int count = (kColumns - 1) * S + K;
          Vector in[count];
#pragma GCC unroll 20
          for (int j = 0; j < count; ++j) in[j] = in_register(load(from + j * kLanes));
#pragma GCC unroll 5
          for (int k = 0; k < K; ++k) {
            const Vector tap = load(taps + k * f.channels);
#pragma GCC unroll 8
            for (int j = 0; j < kColumns; ++j) sum[j] += tap * in[j * S + k];
          }
        }
#pragma GCC unroll 8
        for (int j = 0; j < kColumns; ++j) store_rounded(out + (x + j) * kLanes, bounded<kind>(sum[j]));
      }
    }
  }

  // Adds what a group of the depthwise result contributes to the sums of a row, [column][out_width].
  template <bool pairs>
  DKPNET_ONCE void project(int group) const {
    constexpr int per_word = pairs ? 2 : 1, most = kVectors * kLanes;
    const Word<pairs>* from = reinterpret_cast<const Word<pairs>*>(mid);
    const int64_t pixel = kLanes / per_word;
    for (int n = 0; n < scratch.out_width; n += most)
      with_tile<kPixels>(smaller(most, scratch.out_width - n), [&](auto tile) {
        const float* weight =
            static_cast<const float*>(f.project_weight) + int64_t(group) * kGroup / per_word * scratch.out_width + n;
        for (int x = 0; x < scratch.mid_columns; x += kPixels) {
          float* to = sums + int64_t(x) * scratch.out_width + n;
          tile.read(group == 0 ? f.project_bias + n : to, group == 0 ? 0 : scratch.out_width);
          tile.add(
              Source<pairs>{from + x * pixel, pixel, scratch.mid_columns * pixel, vectors(group), kLanes / per_word},
              weight, scratch.out_width);
          tile.write(to, scratch.out_width);
        }
      });
  }

  // Writes the sums of row y as the result. Where no channel is padding, the row is one run of values.
  template <typename T>
  void finish(int y) const {
    const int64_t row = (index * f.out_height + y) * f.out_width * f.out_channels;
    const bool dense = f.out_channels == scratch.out_width;
    const int runs = dense ? 1 : f.out_width, length = dense ? f.out_width * f.out_channels : f.out_channels;
    for (int x = 0; x < runs; ++x)
      for (int n = 0; n < length; n += kLanes) {
        const int lanes = smaller(kLanes, length - n);
        const int64_t at = row + int64_t(x) * f.out_channels + n;
        Vector sum = load(sums + int64_t(x) * scratch.out_width + n, lanes);
        if (f.residual) sum += load(static_cast<const T*>(f.in) + at, lanes);
        store(static_cast<T*>(f.out) + at, sum, lanes);
      }
  }

  template <typename T, bool pairs, int K, int S, Activation kind>
  void rows(int begin, int end) const {
    memset(ring, 0, scratch.ring * sizeof(float));
    for (int y = begin; y < end; ++y) {
      for (int r = y == begin ? y * S : y * S + K - S; r < y * S + K; ++r) fill<T, pairs, kind>(r);
      for (int group = 0; group < scratch.groups; ++group) {
        filter<K, S, kind, std::conditional_t<pairs, bf16, float>>(group, y);
        project<pairs>(group);
      }
      finish<T>(y);
    }
  }
};

// ---- Threads ----

// Strips of rows that an image is cut into, for the queue: as many for each thread, as none should wait for the last
// one. But each strip expands kernel - stride rows that its neighbour above has expanded, too.
static int64_t strips_of(const Forward& f, int threads) {
  constexpr int per_thread = 2, least = 4;  // strips; rows of a strip for each row that is expanded twice
  if (threads <= 1 || f.batch == 0) return 1;
  const int64_t twice = larger(f.depthwise.kernel - f.depthwise.stride, 1);
  const int64_t enough = (threads + f.batch - 1) / f.batch;  // a strip for each thread
  int64_t rounds = f.out_height / (least * twice) / enough;
  rounds = rounds > per_thread ? per_thread : rounds > 1 ? rounds : 1;
  return enough * rounds < f.out_height ? enough * rounds : f.out_height;
}

template <int value>
struct Constant {
  static constexpr int of = value;
};

// Calls body(T{}, pairs, kernel, stride, activation), the last four as constants.
template <typename Body>
static void with_constants(const Forward& f, const Body& body) {
  const auto sized = [&](auto type, auto pairs, auto kind) {
    if (f.depthwise.kernel == 3)
      return f.depthwise.stride == 1 ? body(type, pairs, Constant<3>{}, Constant<1>{}, kind)
                                     : body(type, pairs, Constant<3>{}, Constant<2>{}, kind);
    return f.depthwise.stride == 1 ? body(type, pairs, Constant<5>{}, Constant<1>{}, kind)
                                   : body(type, pairs, Constant<5>{}, Constant<2>{}, kind);
  };
  with_activation(f.activation, [&](auto kind) {
    if (f.dtype != DType::bf16) return sized(float{}, std::false_type{}, kind);
    if constexpr (kHasPairs)
      if (f.pairs) return sized(bf16{}, std::true_type{}, kind);
    sized(bf16{}, std::false_type{}, kind);
  });
}

static int64_t scratch_size(const Forward& f) { return Scratch(f).size(); }

static void forward(const Forward& f, int threads) {
  const int64_t strips = strips_of(f, threads), items = f.batch * strips, rows = f.out_height, size = scratch_size(f);
  with_constants(f, [&](auto type, auto pairs, auto kernel, auto stride, auto kind) {
    from_queue(items, threads, [&](int64_t item, int64_t part) {
      const int64_t strip = item % strips;
      Image(f, item / strips, f.scratch + part * size)
          .template rows<decltype(type), pairs.value, kernel.of, stride.of, kind.value>(
              int(rows * strip / strips), int(rows * (strip + 1) / strips));
    });
  });
}

const InvertedResidualKernels inverted_residual_kernels{scratch_size, forward};

}  // namespace dkpnet::cpu::DKPNET_ISA
