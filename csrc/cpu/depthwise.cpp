// One image and kGroup channels at a time. Rows are widened to float once, into a ring of as many rows as the kernel
// has, with zeros for the padding: the inner loops need no border cases, and their inputs stay in the caches. The
// layout of a ring's row is [block of kLanes channels][column][kLanes].
#include "cpu/depthwise.h"

#include <atomic>

#include "cpu/parallel.h"
#include "cpu/vector.h"

namespace dkpnet::cpu::DKPNET_ISA {

using namespace depthwise;

constexpr int kGroup = 64;   // channels: 128 bytes of a bf16 pixel
constexpr int kColumns = 8;  // results that are summed side by side
constexpr int kBlocks = kGroup / kLanes;

static inline int round_up(int value, int unit) { return (value + unit - 1) / unit * unit; }
static inline int smaller(int a, int b) { return a < b ? a : b; }

// Columns of a row in the ring of inputs, and in that of gradients (which begins with `taps` - 1 zeros).
static int input_columns(const Shape& s) { return (round_up(s.out_width, kColumns) - 1) * s.stride + s.kernel; }
static int gradient_taps(const Shape& s) { return (s.kernel + s.stride - 1) / s.stride; }
static int gradient_columns(const Shape& s) {
  return round_up(gradient_extent(s.width, s.left, s.stride), kColumns) + gradient_taps(s) - 1;
}

static int64_t scratch_size(const Shape& s) {
  const int64_t taps = s.kernel * s.kernel;
  const int64_t rows = int64_t(s.kernel) * input_columns(s) + int64_t(gradient_taps(s)) * gradient_columns(s);
  return (rows + 2 * taps + 2) * kGroup;
}

// The current channels, and their part of the scratch memory.
template <int K, int S>
struct Group {
  const Shape& shape;
  int64_t image;
  int first, channels, blocks;
  float *inputs, *gradients;  // rings of K and of kTaps rows
  float *weight, *sums;       // [block][K * K][kLanes]; [block][K * K + 1][kLanes]
  float* bias;
  int in_columns, grad_columns;
  static constexpr int kTaps = (K + S - 1) / S;

  Group(const Shape& s, int64_t item, float* scratch, const float* all_weights)
      : shape(s), in_columns(input_columns(s)), grad_columns(gradient_columns(s)) {
    const int64_t groups = (s.channels + kGroup - 1) / kGroup;
    image = item / groups;
    first = int(item % groups) * kGroup;
    channels = smaller(kGroup, s.channels - first);
    blocks = (channels + kLanes - 1) / kLanes;
    memset(scratch, 0, scratch_size(s) * sizeof(float));
    inputs = scratch;
    gradients = inputs + K * in_columns * kGroup;
    weight = gradients + kTaps * grad_columns * kGroup;
    sums = weight + K * K * kGroup;
    bias = sums + (K * K + 1) * kGroup;
    for (int b = 0; b < blocks; ++b)
      for (int tap = 0; tap < K * K; ++tap)
        store(weight + (b * K * K + tap) * kLanes,
              load(all_weights + int64_t(tap) * s.channels + first + b * kLanes, lanes(b)));
  }

  int lanes(int block) const { return smaller(kLanes, channels - block * kLanes); }
  // Where the rings hold row r of the padded input and row q of the gradient.
  float* input_row(int r) const { return inputs + r % K * in_columns * kGroup; }
  float* gradient_row(int q) const { return gradients + q % kTaps * grad_columns * kGroup; }

  // Widens the input rows that output row y reads and row y - 1 did not; of the first row all.
  template <typename T>
  void read_inputs(const void* in, int y, bool first_row) const {
    for (int r = first_row ? y * S : y * S + K - S; r < y * S + K; ++r) {
      float* row = input_row(r);
      const int v = r - shape.top;
      if (v < 0 || v >= shape.height) {
        memset(row, 0, in_columns * kGroup * sizeof(float));
        continue;
      }
      const T* from = static_cast<const T*>(in) + (image * shape.height + v) * shape.width * shape.channels + first;
      const int count = smaller(shape.width, in_columns - shape.left);
      for (int u = 0; u < count; ++u)
        for (int b = 0; b < blocks; ++b)
          store(row + (b * in_columns + shape.left + u) * kLanes,
                load(from + int64_t(u) * shape.channels + b * kLanes, lanes(b)));
    }
  }
};

template <typename T, int K, int S, Activation kind>
static void forward_band(const Forward& f, int64_t item, int begin, int end, float* scratch) {
  const Shape& s = f.shape;
  const Group<K, S> group(s, item, scratch, f.weight);
  for (int y = begin; y < end; ++y) {
    group.template read_inputs<T>(f.in, y, y == begin);
    T* out = static_cast<T*>(f.out) + (group.image * s.out_height + y) * s.out_width * s.channels + group.first;
    for (int b = 0; b < group.blocks; ++b) {
      const Vector bias = load(f.bias + group.first + b * kLanes, group.lanes(b));
      const float* weight = group.weight + b * K * K * kLanes;
      for (int x = 0; x < s.out_width; x += kColumns) {
        Vector sum[kColumns];
        for (int j = 0; j < kColumns; ++j) sum[j] = bias;
        for (int i = 0; i < K; ++i) {
          const float* row = group.input_row(y * S + i) + (b * group.in_columns + x * S) * kLanes;
          for (int k = 0; k < K; ++k) {
            const Vector w = load(weight + (i * K + k) * kLanes);
            for (int j = 0; j < kColumns; ++j) sum[j] += w * load(row + (j * S + k) * kLanes);
          }
        }
        const int count = smaller(kColumns, s.out_width - x);
        for (int j = 0; j < count; ++j)
          store(out + int64_t(x + j) * s.channels + b * kLanes, activated<kind>(sum[j]), group.lanes(b));
      }
    }
  }
}

// Row y of the gradient before the activation, into the ring; its sum is the bias' gradient.
template <typename T, int K, int S, Activation kind>
static void read_gradient(const Backward& f, const Group<K, S>& group, int y) {
  const Shape& s = f.shape;
  float* row = group.gradient_row(y);
  if (y >= s.out_height) {
    memset(row, 0, group.grad_columns * kGroup * sizeof(float));
    return;
  }
  const int64_t start = (group.image * s.out_height + y) * s.out_width * s.channels + group.first;
  const T *grad = static_cast<const T*>(f.grad_out) + start, *out = static_cast<const T*>(f.out) + start;
  Vector sum[kBlocks] = {};
  for (int x = 0; x < s.out_width; ++x)
    for (int b = 0; b < group.blocks; ++b) {
      const int64_t at = int64_t(x) * s.channels + b * kLanes;
      const Vector before = masked<kind>(load(grad + at, group.lanes(b)), load(out + at, group.lanes(b)));
      store(row + (b * group.grad_columns + group.kTaps - 1 + x) * kLanes, before);
      sum[b] += before;
    }
  for (int b = 0; b < group.blocks; ++b) {
    float* total = group.sums + (b * (K * K + 1) + K * K) * kLanes;
    store(total, load(total) + sum[b]);
  }
}

// Adds output row y's share to the weight's gradient. Each row is summed separately: one long sum is less accurate.
template <int K, int S>
static void add_weight_gradient(const Group<K, S>& group, int y) {
  constexpr int rows = K * K + 4 <= kRegisters ? K : 1;  // kernel rows whose sums stay in registers
  const int width = group.shape.out_width;
  for (int b = 0; b < group.blocks; ++b) {
    const float* grad = group.gradient_row(y) + (b * group.grad_columns + group.kTaps - 1) * kLanes;
    for (int i = 0; i < K; i += rows) {
      const float* input[rows];
      for (int r = 0; r < rows; ++r) input[r] = group.input_row(y * S + i + r) + b * group.in_columns * kLanes;
      Vector sum[rows][K] = {};
      for (int x = 0; x < width; ++x) {
        const Vector g = load(grad + x * kLanes);
#pragma GCC unroll 5
        for (int r = 0; r < rows; ++r)
#pragma GCC unroll 5
          for (int k = 0; k < K; ++k) sum[r][k] += g * load(input[r] + (x * S + k) * kLanes);
      }
      for (int r = 0; r < rows; ++r)
        for (int k = 0; k < K; ++k) {
          float* total = group.sums + (b * (K * K + 1) + (i + r) * K + k) * kLanes;
          store(total, load(total) + sum[r][k]);
        }
    }
  }
}

// Writes the rows of the data gradient that no later gradient row contributes to.
template <typename T, int K, int S>
static void write_data_gradient(const Backward& f, const Group<K, S>& group, int q) {
  const Shape& s = f.shape;
  for (int py = 0; py < S; ++py) {
    const int v = q * S + py - s.top;
    if (v < 0 || v >= s.height) continue;
    T* out = static_cast<T*>(f.grad_in) + (group.image * s.height + v) * s.width * s.channels + group.first;
    for (int b = 0; b < group.blocks; ++b) {
      const float* weight = group.weight + b * K * K * kLanes;
      for (int px = 0; px < S; ++px) {
        for (int t = 0; t * S + px - s.left < s.width; t += kColumns) {
          Vector sum[kColumns] = {};
          for (int i = py; i < K; i += S) {
            const int before = i / S;
            if (q < before) break;
            const float* row = group.gradient_row(q - before) + (b * group.grad_columns + group.kTaps - 1 + t) * kLanes;
            for (int k = px; k < K; k += S) {
              const Vector w = load(weight + (i * K + k) * kLanes);
              for (int j = 0; j < kColumns; ++j) sum[j] += w * load(row + (j - k / S) * kLanes);
            }
          }
          for (int j = 0; j < kColumns; ++j) {
            const int u = (t + j) * S + px - s.left;
            if (u >= 0 && u < s.width) store(out + int64_t(u) * s.channels + b * kLanes, sum[j], group.lanes(b));
          }
        }
      }
    }
  }
}

template <typename T, int K, int S, Activation kind>
static void backward_group(const Backward& f, int64_t item, float* scratch) {
  const Shape& s = f.shape;
  const Group<K, S> group(s, item, scratch, f.weight);
  const int rows = f.grad_in ? gradient_extent(s.height, s.top, S) : s.out_height;
  for (int q = 0; q < rows; ++q) {
    read_gradient<T, K, S, kind>(f, group, q);
    if (f.partials && q < s.out_height) {
      group.template read_inputs<T>(f.in, q, q == 0);
      add_weight_gradient(group, q);
    }
    if (f.grad_in) write_data_gradient<T>(f, group, q);
  }
  if (!f.partials) return;
  for (int b = 0; b < group.blocks; ++b)
    for (int tap = 0; tap <= K * K; ++tap)
      store(f.partials + (group.image * (K * K + 1) + tap) * s.channels + group.first + b * kLanes,
            load(group.sums + (b * (K * K + 1) + tap) * kLanes), group.lanes(b));
}

static int64_t groups_of(const Shape& s) { return s.batch * ((s.channels + kGroup - 1) / kGroup); }

// Calls body(item, the thread's scratch) for every item. A free thread takes the next one, so that
// the other threads do not wait for a core that another process uses.
template <typename Body>
static void for_each_item(const Shape& s, int64_t items, float* scratch, int threads, const Body& body) {
  const int64_t size = scratch_size(s), parts = items < threads ? items : threads;
  std::atomic<int64_t> next{0};
  parallel_for(parts, 1, threads, [&](int64_t begin, int64_t end) {
    for (int64_t part = begin; part < end; ++part)
      for (int64_t item = next++; item < items; item = next++) body(item, scratch + part * size);
  });
}

// Bands of rows that each image's group of channels is cut into: enough for all threads to finish together. A band
// reads the rows that it shares with the next once more, and clears its scratch, so it is not cut too thin.
static int64_t bands_of(const Shape& s, int threads) {
  constexpr int items_per_thread = 4, least_rows = 16;
  if (threads <= 1 || groups_of(s) == 0) return 1;
  const int64_t wanted = (int64_t(items_per_thread) * threads + groups_of(s) - 1) / groups_of(s);
  const int64_t most = s.out_height / least_rows;
  return wanted < most ? wanted : most > 1 ? most : 1;
}

// Calls body(T{}, kernel, stride, activation), the last three as constants.
template <int value>
struct Constant {
  static constexpr int of = value;
};
template <typename Body>
static void with_shape(const Shape& s, const Body& body) {
  const auto with_sizes = [&](auto type, auto kind) {
    if (s.kernel == 3)
      return s.stride == 1 ? body(type, Constant<3>{}, Constant<1>{}, kind)
                           : body(type, Constant<3>{}, Constant<2>{}, kind);
    return s.stride == 1 ? body(type, Constant<5>{}, Constant<1>{}, kind)
                         : body(type, Constant<5>{}, Constant<2>{}, kind);
  };
  with_activation(s.activation, [&](auto kind) {
    if (s.dtype == DType::bf16) return with_sizes(bf16{}, kind);
    with_sizes(float{}, kind);
  });
}

static void forward(const Forward& f, int threads) {
  with_shape(f.shape, [&](auto type, auto kernel, auto stride, auto kind) {
    const int64_t bands = bands_of(f.shape, threads), rows = f.shape.out_height;
    for_each_item(f.shape, groups_of(f.shape) * bands, f.scratch, threads, [&](int64_t item, float* scratch) {
      const int64_t band = item % bands;
      forward_band<decltype(type), kernel.of, stride.of, kind.value>(f, item / bands, int(rows * band / bands),
                                                                     int(rows * (band + 1) / bands), scratch);
    });
  });
}

static void backward(const Backward& f, int threads) {
  with_shape(f.shape, [&](auto type, auto kernel, auto stride, auto kind) {
    for_each_item(f.shape, groups_of(f.shape), f.scratch, threads, [&](int64_t item, float* scratch) {
      backward_group<decltype(type), kernel.of, stride.of, kind.value>(f, item, scratch);
    });
  });
}

const DepthwiseKernels depthwise_kernels{scratch_size, forward, backward};

}  // namespace dkpnet::cpu::DKPNET_ISA
