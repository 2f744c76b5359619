// csrc/math/projection.h and its CPU loops, for every instruction set that this machine has.
#include <vector>

#include "check.h"
#include "cpu/inverted_residual.h"
#include "cpu/projection.h"

using namespace dkpnet;
using projection::Forward;

namespace {

struct Kernels {
  const cpu::ProjectionKernels* functions;
  bool pairs;
};

std::vector<Kernels> all_kernels(bool pairs) {
  std::vector<Kernels> kernels{{&cpu::baseline::projection_kernels, false}};
#ifdef DKPNET_X86_LEVELS
  if (cpu::detected_isa() >= cpu::Isa::avx2) kernels.push_back({&cpu::avx2::projection_kernels, false});
  if (cpu::detected_isa() >= cpu::Isa::avx512) kernels.push_back({&cpu::avx512::projection_kernels, false});
  if (pairs && cpu::has_bf16_dot_products()) kernels.push_back({&cpu::avx512::projection_kernels, true});
#endif
  return kernels;
}

// Multiples of 1/8 that bf16 holds.
float value(int64_t i, int factor, int spread) { return float(i * factor % spread - spread / 2) / 8; }

template <typename T, typename Out>
void test(Forward f, bool with_coarse) {
  const int width = (f.out_channels + projection::kOutUnit - 1) / projection::kOutUnit * projection::kOutUnit;
  const int64_t pixels = f.batch * f.height * f.width;
  std::vector<T> in(pixels * f.in_channels);
  for (size_t i = 0; i < in.size(); ++i) in[i] = narrow<T>(value(i, 37, 41));
  std::vector<Out> coarse(f.batch * (f.height / 2) * (f.width / 2) * f.out_channels);
  for (size_t i = 0; i < coarse.size(); ++i) coarse[i] = narrow<Out>(value(i, 29, 31));
  std::vector<float> weight(size_t(f.in_channels) * width), bias(width);
  for (int c = 0; c < f.in_channels; ++c)
    for (int n = 0; n < f.out_channels; ++n) weight[size_t(c) * width + n] = value(n * 13 + c * 17, 53, 29) / 8;
  for (int n = 0; n < f.out_channels; ++n) bias[n] = value(n, 7, 11);
  for (const Kernels& kernels : all_kernels(sizeof(T) == 2 && sizeof(Out) == 2 && f.in_channels % 2 == 0)) {
    std::vector<uint32_t> words(weight.size());
    for (int c = 0; c < f.in_channels; ++c)
      for (int n = 0; n < width; ++n) {
        const float w = weight[size_t(c) * width + n];
        if (kernels.pairs)
          words[size_t(c / 2) * width + n] |= uint32_t(narrow<bf16>(w).bits) << 16 * (c % 2);
        else
          words[size_t(c) * width + n] = bit_cast<uint32_t>(w);
      }
    words.resize(kernels.pairs ? words.size() / 2 : words.size());
    f.pairs = kernels.pairs, f.in = in.data(), f.weight = words.data(), f.bias = bias.data();
    f.coarse = with_coarse ? coarse.data() : nullptr;
    std::vector<Out> first;
    for (int threads : {1, 3}) {
      std::vector<Out> got(pixels * f.out_channels);
      f.out = got.data();
      kernels.functions->forward(f, threads);
      for (int64_t p = 0; p < pixels; ++p) {
        const int64_t x = p % f.width, y = p / f.width % f.height, b = p / f.width / f.height;
        for (int n = 0; n < f.out_channels; ++n) {
          double sum = bias[n], size = 0;
          for (int c = 0; c < f.in_channels; ++c) {
            const double term = double(widen(in[p * f.in_channels + c])) * weight[size_t(c) * width + n];
            sum += term, size += fabs(term);
          }
          if (with_coarse)
            sum += widen(coarse[((b * (f.height / 2) + y / 2) * (f.width / 2) + x / 2) * f.out_channels + n]);
          if (f.activation != Activation::none && sum < 0) sum = 0;
          if (f.activation == Activation::relu6 && sum > 6) sum = 6;
          const double terms = kernels.pairs ? 0x1p-8 : 0x1p-20, result = sizeof(Out) == 2 ? 0x1p-8 : 0x1p-20;
          CHECK_NEAR(widen(got[p * f.out_channels + n]), sum, terms * size + result * fabs(sum) + 1e-5);
        }
      }
      if (threads == 1) first = got;
      CHECK(!pixels || memcmp(first.data(), got.data(), got.size() * sizeof(Out)) == 0);
    }
  }
}

}  // namespace

int main() {
  struct Case {
    int64_t batch;
    int height, width, in_channels, out_channels;
    bool coarse;
  };
  const Case cases[] = {{0, 4, 6, 4, 8, false}, {1, 1, 5, 3, 1, false},     {2, 4, 6, 40, 64, true},
                        {1, 2, 2, 7, 20, true}, {1, 66, 40, 10, 24, false}, {1, 1, 9, 301, 113, false}};
  for (const Case& c : cases)
    for (Activation activation : {Activation::none, Activation::relu, Activation::relu6}) {
      Forward f{};
      f.batch = c.batch, f.height = c.height, f.width = c.width, f.activation = activation;
      f.in_channels = c.in_channels, f.out_channels = c.out_channels;
      f.dtype = f.out_dtype = DType::f32;
      test<float, float>(f, c.coarse);
      f.dtype = DType::bf16;
      test<bf16, float>(f, c.coarse);
      f.out_dtype = DType::bf16;
      test<bf16, bf16>(f, c.coarse);
    }
  return check_result();
}
