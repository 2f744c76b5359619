// csrc/math/inverted_residual.h and its CPU loops, for every instruction set that this machine has.
#include <vector>

#include "check.h"
#include "cpu/inverted_residual.h"

using namespace dkpnet;
using inverted_residual::Forward;

namespace {

struct Kernels {
  const cpu::InvertedResidualKernels* functions;
  bool pairs;
};

std::vector<Kernels> all_kernels(bool bf16) {
  std::vector<Kernels> kernels{{&cpu::baseline::inverted_residual_kernels, false}};
#ifdef DKPNET_X86_LEVELS
  if (cpu::detected_isa() >= cpu::Isa::avx2) kernels.push_back({&cpu::avx2::inverted_residual_kernels, false});
  if (cpu::detected_isa() >= cpu::Isa::avx512) kernels.push_back({&cpu::avx512::inverted_residual_kernels, false});
  if (bf16 && cpu::has_bf16_dot_products()) kernels.push_back({&cpu::avx512::inverted_residual_kernels, true});
#endif
  return kernels;
}

// Multiples of 1/8 that bf16 holds.
float value(int64_t i, int factor, int spread) { return float(i * factor % spread - spread / 2) / 8; }

double activated_by_hand(Activation activation, double x) {
  if (activation != Activation::none && x < 0) return 0;
  return activation == Activation::relu6 && x > 6 ? 6 : x;
}

int round_up(int x, int unit) { return (x + unit - 1) / unit * unit; }

// Weights [rows of `blocks` blocks][channels] in words: floats, or pairs of two rows.
std::vector<uint32_t> packed(const std::vector<float>& weight, int blocks, int rows, int channels, bool pairs) {
  const int per_word = pairs ? 2 : 1, words = (rows + per_word - 1) / per_word;
  std::vector<uint32_t> out(size_t(blocks) * words * channels);
  for (int b = 0; b < blocks; ++b)
    for (int k = 0; k < rows; ++k)
      for (int c = 0; c < channels; ++c) {
        const float w = weight[(size_t(b) * rows + k) * channels + c];
        uint32_t& word = out[(size_t(b) * words + k / per_word) * channels + c];
        word |= pairs ? uint32_t(narrow<bf16>(w).bits) << 16 * (k % 2) : bit_cast<uint32_t>(w);
      }
  return out;
}

// bytes: in is of bytes, each standing for a multiple of 1/8.
template <typename T>
void test(Forward f, int expanded, bool bytes) {
  f.planar = f.expand.kernel == 3;
  const int in_channels = f.in_channels, taps = f.depthwise.kernel * f.depthwise.kernel;
  f.channels = round_up(expanded, inverted_residual::kUnit);
  const int out_width = round_up(f.out_channels, inverted_residual::kOutUnit);
  const int rows = f.expand.kernel * in_channels;
  std::vector<T> in(size_t(f.batch) * f.height * f.width * in_channels);
  std::vector<uint8_t> image(in.size());
  const auto entry = [](int channel, int byte) { return value(byte + channel, 37, 41); };
  for (size_t i = 0; i < in.size(); ++i) {
    const int channel = f.planar ? i / (int64_t(f.height) * f.width) % in_channels : i % in_channels;
    image[i] = uint8_t(i * 7);
    in[i] = narrow<T>(bytes ? entry(channel, image[i]) : value(i, 37, 41));
  }
  std::vector<float> expand(size_t(f.expand.kernel) * rows * f.channels), expand_bias(f.channels);
  std::vector<float> filter(size_t(taps) * f.channels), filter_bias(f.channels);
  std::vector<float> project(size_t(f.channels) * out_width), project_bias(out_width);
  for (int c = 0; c < expanded; ++c) {
    for (int k = 0; k < f.expand.kernel * rows; ++k)
      expand[size_t(k) * f.channels + c] = value(k * 7 + c * 11, 29, 23) / 8;
    for (int k = 0; k < taps; ++k) filter[size_t(k) * f.channels + c] = value(k * 5 + c * 3, 31, 19) / 4;
    for (int n = 0; n < f.out_channels; ++n) project[size_t(c) * out_width + n] = value(n * 13 + c * 17, 53, 29) / 8;
    expand_bias[c] = value(c, 5, 17), filter_bias[c] = value(c, 3, 13);
  }
  for (int n = 0; n < f.out_channels; ++n) project_bias[n] = value(n, 7, 11);

  const auto in_at = [&](int64_t b, int y, int x, int c) -> double {
    if (y < 0 || y >= f.height || x < 0 || x >= f.width) return 0;
    return widen(in[f.planar ? ((b * in_channels + c) * f.height + y) * f.width + x
                             : ((b * f.height + y) * f.width + x) * in_channels + c]);
  };
  const auto mid_at = [&](int64_t b, int y, int x, int c) -> double {
    if (y < 0 || y >= f.mid_height || x < 0 || x >= f.mid_width) return 0;
    if (!f.expand.kernel) return in_at(b, y, x, c);
    double sum = expand_bias[c];
    for (int i = 0; i < f.expand.kernel; ++i)
      for (int k = 0; k < rows; ++k)
        sum += in_at(b, y * f.expand.stride - f.expand.top + i, x * f.expand.stride - f.expand.left + k / in_channels,
                     k % in_channels) *
               expand[(size_t(i) * rows + k) * f.channels + c];
    return activated_by_hand(f.activation, sum);
  };
  const size_t outputs = size_t(f.batch) * f.out_height * f.out_width * f.out_channels;
  std::vector<double> expected, sizes;  // sizes: of the terms, of which each may be rounded
  for (int64_t b = 0; b < f.batch; ++b)
    for (int y = 0; y < f.out_height; ++y)
      for (int x = 0; x < f.out_width; ++x) {
        std::vector<double> sum(project_bias.begin(), project_bias.begin() + f.out_channels), size(f.out_channels);
        for (int c = 0; c < expanded; ++c) {
          double filtered = filter_bias[c];
          for (int k = 0; k < taps; ++k)
            filtered += filter[size_t(k) * f.channels + c] *
                        mid_at(b, y * f.depthwise.stride - f.depthwise.top + k / f.depthwise.kernel,
                               x * f.depthwise.stride - f.depthwise.left + k % f.depthwise.kernel, c);
          filtered = activated_by_hand(f.activation, filtered);
          for (int n = 0; n < f.out_channels; ++n) {
            sum[n] += filtered * project[size_t(c) * out_width + n];
            size[n] += fabs(filtered * project[size_t(c) * out_width + n]);
          }
        }
        for (int n = 0; n < f.out_channels; ++n) {
          expected.push_back(sum[n] + (f.residual ? in_at(b, y, x, n) : 0));
          sizes.push_back(size[n]);
        }
      }
  for (const Kernels& kernels : all_kernels(sizeof(T) == 2)) {
    if (kernels.pairs && f.expand.kernel && f.expand.stride * in_channels % 2) continue;
    const auto expand_words = packed(expand, f.expand.kernel, rows, f.channels, kernels.pairs);
    const auto project_words = packed(project, 1, f.channels, out_width, kernels.pairs);
    const double terms = kernels.pairs ? 0x1p-8 : 0x1p-20, result = sizeof(T) == 2 ? 0x1p-8 : 0x1p-20;
    std::vector<float> floats(in_channels * 256);
    std::vector<bf16> halves(floats.size());
    for (size_t i = 0; i < floats.size(); ++i) floats[i] = entry(i / 256, i % 256), halves[i] = narrow<bf16>(floats[i]);
    f.table = !bytes ? nullptr : kernels.pairs ? static_cast<void*>(halves.data()) : floats.data();
    std::vector<T> first;
    for (int threads : {1, 3}) {
      f.pairs = kernels.pairs;
      std::vector<float> scratch(threads * kernels.functions->scratch_size(f) + 16, NAN);
      std::vector<T> got(outputs);
      f.in = bytes ? static_cast<void*>(image.data()) : in.data(), f.out = got.data(),
      f.expand_bias = expand_bias.data();
      f.expand_weight = expand_words.data(), f.project_weight = project_words.data();
      f.taps = filter.data(), f.taps_bias = filter_bias.data(), f.project_bias = project_bias.data();
      f.scratch = scratch.data();
      kernels.functions->forward(f, threads);
      for (size_t i = 0; i < outputs; ++i)
        CHECK_NEAR(widen(got[i]), expected[i], terms * sizes[i] + result * fabs(expected[i]) + 1e-5);
      if (threads == 1) first = got;
      CHECK(!outputs || memcmp(first.data(), got.data(), outputs * sizeof(T)) == 0);
    }
  }
}

void test_shapes(DType dtype, Activation activation) {
  struct Case {
    int64_t batch;
    int in_channels, expanded, out_channels, height, width, expand_kernel, expand_stride;
    bool residual;
  };
  const Case cases[] = {{0, 4, 20, 4, 5, 6, 1, 1, false},   {2, 4, 20, 4, 7, 9, 1, 1, true},
                        {1, 6, 50, 40, 9, 21, 1, 1, false}, {1, 3, 32, 16, 14, 18, 3, 2, false},
                        {1, 20, 20, 20, 13, 5, 0, 1, true}, {2, 5, 113, 24, 6, 3, 1, 1, false}};
  for (const Case& c : cases)
    for (int kernel : {3, 5})
      for (int stride : {1, 2}) {
        Forward f{};
        f.dtype = dtype, f.activation = activation, f.batch = c.batch, f.residual = c.residual && stride == 1;
        f.height = c.height, f.width = c.width, f.in_channels = c.in_channels, f.out_channels = c.out_channels;
        f.expand = {c.expand_kernel, c.expand_stride, 0, c.expand_kernel / 2};
        // One row and column of padding more at the end, as TensorFlow pads, where the dense kernel is 3.
        f.mid_height = (c.height - 1) / c.expand_stride + 1, f.mid_width = (c.width - 1) / c.expand_stride + 1;
        const int pad = kernel - stride;
        f.depthwise = {kernel, stride, pad / 2, pad - pad / 2};
        f.out_height = (f.mid_height + pad - kernel) / stride + 1,
        f.out_width = (f.mid_width + pad - kernel) / stride + 1;
        for (bool bytes : {false, true}) {
          if (bytes && (f.residual || !c.expand_kernel)) continue;
          dtype == DType::bf16 ? test<bf16>(f, c.expanded, bytes) : test<float>(f, c.expanded, bytes);
        }
      }
}

}  // namespace

int main() {
  for (DType dtype : {DType::f32, DType::bf16})
    for (Activation activation : {Activation::none, Activation::relu, Activation::relu6})
      test_shapes(dtype, activation);
  return check_result();
}
