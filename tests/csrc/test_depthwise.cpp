// csrc/math/depthwise.h, csrc/math/pointwise.h and their CPU loops, for every instruction set that this machine has.
#include <vector>

#include "check.h"
#include "cpu/depthwise.h"
#include "cpu/pointwise.h"

using namespace dkpnet;

namespace {

struct Kernels {
  const cpu::DepthwiseKernels* depthwise;
  const cpu::PointwiseKernels* pointwise;
};

std::vector<Kernels> all_kernels() {
  std::vector<Kernels> kernels{{&cpu::baseline::depthwise_kernels, &cpu::baseline::pointwise_kernels}};
#ifdef DKPNET_X86_LEVELS
  if (cpu::detected_isa() >= cpu::Isa::avx2)
    kernels.push_back({&cpu::avx2::depthwise_kernels, &cpu::avx2::pointwise_kernels});
  if (cpu::detected_isa() >= cpu::Isa::avx512)
    kernels.push_back({&cpu::avx512::depthwise_kernels, &cpu::avx512::pointwise_kernels});
#endif
  return kernels;
}

double passes(Activation activation, double out) {
  return !(activation != Activation::none && out <= 0) && !(activation == Activation::relu6 && out >= 6);
}

double activated_by_hand(Activation activation, double x) {
  if (activation != Activation::none && x < 0) return 0;
  return activation == Activation::relu6 && x > 6 ? 6 : x;
}

// A whole number of eighths, so that bf16 holds it and no sum is rounded in float.
template <typename T>
std::vector<T> values(int64_t count, int factor, int spread) {
  std::vector<T> found(count);
  for (int64_t i = 0; i < count; ++i) found[i] = narrow<T>(float(i * factor % spread - spread / 2) / 8);
  return found;
}

// The convolution by hand, in double: calls body(output index, weight index, input index or -1 outside).
template <typename Body>
void for_each_tap(const depthwise::Shape& s, const Body& body) {
  for (int64_t b = 0; b < s.batch; ++b)
    for (int y = 0; y < s.out_height; ++y)
      for (int x = 0; x < s.out_width; ++x)
        for (int c = 0; c < s.channels; ++c)
          for (int i = 0; i < s.kernel; ++i)
            for (int j = 0; j < s.kernel; ++j) {
              const int v = y * s.stride - s.top + i, u = x * s.stride - s.left + j;
              if (v < 0 || v >= s.height || u < 0 || u >= s.width) continue;
              body(((b * s.out_height + y) * s.out_width + x) * s.channels + c, (i * s.kernel + j) * s.channels + c,
                   ((b * s.height + v) * s.width + u) * s.channels + c);
            }
}

template <typename T>
void test_depthwise(const depthwise::Shape& s) {
  const int taps = s.kernel * s.kernel;
  const int64_t inputs = s.batch * s.height * s.width * s.channels;
  const int64_t outputs = s.batch * s.out_height * s.out_width * s.channels;
  const auto in = values<T>(inputs, 37, 41), grad_out = values<T>(outputs, 53, 31);
  const auto weight = values<float>(taps * s.channels, 29, 23), bias = values<float>(s.channels, 5, 17);
  std::vector<double> sums(outputs), grad_in(inputs), grads(s.batch * (taps + 1) * s.channels);
  for (int64_t o = 0; o < outputs; ++o) sums[o] = bias[o % s.channels];
  for_each_tap(s, [&](int64_t o, int64_t w, int64_t i) { sums[o] += double(weight[w]) * widen(in[i]); });
  std::vector<T> out(outputs);
  for (int64_t o = 0; o < outputs; ++o) out[o] = narrow<T>(float(activated_by_hand(s.activation, sums[o])));
  const int64_t per_image = outputs / (s.batch ? s.batch : 1);
  const auto before = [&](int64_t o) { return widen(grad_out[o]) * passes(s.activation, widen(out[o])); };
  const auto partial = [&](int64_t o) { return o / per_image * (taps + 1) * s.channels; };
  for_each_tap(s, [&](int64_t o, int64_t w, int64_t i) {
    grad_in[i] += before(o) * weight[w];
    grads[partial(o) + w] += before(o) * widen(in[i]);
  });
  for (int64_t o = 0; o < outputs; ++o) grads[partial(o) + taps * s.channels + o % s.channels] += before(o);

  const double unit = sizeof(T) == 2 ? 0x1p-8 : 0x1p-20;
  for (const Kernels& kernels : all_kernels())
    for (int threads : {1, 3}) {
      std::vector<float> scratch(threads * kernels.depthwise->scratch_size(s), NAN);
      std::vector<T> got(outputs), got_in(inputs);
      std::vector<float> partials(grads.size(), NAN);
      kernels.depthwise->forward({s, in.data(), weight.data(), bias.data(), got.data(), scratch.data()}, threads);
      for (int64_t o = 0; o < outputs; ++o)
        CHECK_NEAR(widen(got[o]), activated_by_hand(s.activation, sums[o]), unit * fabs(sums[o]) + 1e-6);
      depthwise::Backward backward{
          s, in.data(), out.data(), grad_out.data(), weight.data(), got_in.data(), partials.data(), scratch.data()};
      kernels.depthwise->backward(backward, threads);
      for (int64_t i = 0; i < inputs; ++i) CHECK_NEAR(widen(got_in[i]), grad_in[i], unit * fabs(grad_in[i]) + 1e-6);
      for (size_t i = 0; i < grads.size(); ++i) CHECK_NEAR(partials[i], grads[i], 1e-5 * fabs(grads[i]) + 1e-6);
      // Each alone gives what both together gave.
      std::vector<T> in_alone(inputs);
      std::vector<float> partials_alone(grads.size(), NAN);
      backward.grad_in = in_alone.data(), backward.partials = nullptr;
      kernels.depthwise->backward(backward, threads);
      backward.grad_in = nullptr, backward.partials = partials_alone.data();
      kernels.depthwise->backward(backward, threads);
      CHECK(!inputs ||
            memcmp(in_alone.data(), got_in.data(), inputs * sizeof(T)) == 0);  // null pointers are not for memcmp
      CHECK(grads.empty() || memcmp(partials_alone.data(), partials.data(), grads.size() * sizeof(float)) == 0);
    }
}

template <typename T>
void test_mask(DType dtype, int64_t count, int64_t width, Activation activation) {
  const auto grad_out = values<T>(count, 53, 31), out = values<T>(count, 37, 101);
  const int64_t size = pointwise::kRows * width, parts = (count + size - 1) / size;
  std::vector<double> sums(parts * width);
  for (int64_t i = 0; i < count; ++i)
    sums[i / size * width + i % width] += widen(grad_out[i]) * passes(activation, widen(out[i]));
  for (const Kernels& kernels : all_kernels())
    for (int threads : {1, 3}) {
      std::vector<T> grad(count);
      std::vector<float> partials(parts * width, NAN);
      kernels.pointwise->mask(
          {dtype, count, width, activation, grad_out.data(), out.data(), grad.data(), partials.data()}, threads);
      if (activation != Activation::none)
        for (int64_t i = 0; i < count; ++i)
          CHECK_NEAR(widen(grad[i]), widen(grad_out[i]) * passes(activation, widen(out[i])), 0);
      for (size_t i = 0; i < sums.size(); ++i) CHECK_NEAR(partials[i], sums[i], 1e-5 * fabs(sums[i]) + 1e-6);
    }
}

void test_shapes(DType dtype, Activation activation) {
  struct Case {
    int64_t batch;
    int channels, height, width, top, bottom, left, right;
  };
  const Case cases[] = {{0, 3, 4, 5, 1, 1, 1, 1},   {2, 3, 7, 9, 1, 1, 1, 1},   {1, 20, 12, 10, 0, 1, 0, 1},
                        {2, 70, 6, 17, 2, 2, 2, 2}, {1, 131, 5, 5, 0, 0, 0, 0}, {3, 16, 1, 1, 2, 2, 2, 2},
                        {1, 8, 9, 40, 2, 0, 0, 2}};
  for (const Case& c : cases)
    for (int kernel : {3, 5})
      for (int stride : {1, 2}) {
        const int out_height = (c.height + c.top + c.bottom - kernel) / stride + 1;
        const int out_width = (c.width + c.left + c.right - kernel) / stride + 1;
        const depthwise::Shape shape{dtype,     c.batch, c.channels, c.height, c.width, out_height,
                                     out_width, kernel,  stride,     c.top,    c.left,  activation};
        if (dtype == DType::bf16)
          test_depthwise<bf16>(shape);
        else
          test_depthwise<float>(shape);
      }
  for (int64_t width : {1, 3, 16, 24, 96})
    for (int64_t count : {int64_t(0), width, 128 * width, 1000 * width, 1000 * width + 1})
      if (dtype == DType::bf16)
        test_mask<bf16>(dtype, count, width, activation);
      else
        test_mask<float>(dtype, count, width, activation);
}

void test_arithmetic() {
  CHECK(isnan(activated<Activation::relu6>(NAN)) && masked<Activation::relu6>(2.0f, NAN) == 2.0f);
  CHECK(activated<Activation::relu6>(7.0f) == 6.0f && activated<Activation::relu>(7.0f) == 7.0f);
  CHECK(activated<Activation::relu>(-1.0f) == 0.0f && activated<Activation::none>(-1.0f) == -1.0f);
  CHECK(masked<Activation::relu6>(2.0f, 6.0f) == 0.0f && masked<Activation::relu>(2.0f, 6.0f) == 2.0f);
  CHECK(masked<Activation::relu>(2.0f, 0.0f) == 0.0f && masked<Activation::none>(2.0f, 0.0f) == 2.0f);
  CHECK(depthwise::gradient_extent(8, 1, 2) == 5 && depthwise::gradient_extent(8, 0, 1) == 8);
}

}  // namespace

int main() {
  test_arithmetic();
  for (DType dtype : {DType::f32, DType::bf16})
    for (Activation activation : {Activation::none, Activation::relu, Activation::relu6})
      test_shapes(dtype, activation);
  return check_result();
}
