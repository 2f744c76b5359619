// csrc/math/reweight.h and csrc/cpu/reweight.cpp, for every instruction set that this machine has.
#include <array>
#include <vector>

#include "check.h"
#include "cpu/reweight.h"

using namespace dkpnet;

namespace {

std::vector<const cpu::ReweightKernels*> all_kernels() {
  std::vector<const cpu::ReweightKernels*> kernels{&cpu::reweight(), &cpu::baseline::reweight};
#ifdef DKPNET_X86_LEVELS
  if (cpu::detected_isa() >= cpu::Isa::avx2) kernels.push_back(&cpu::avx2::reweight);
#endif
  return kernels;
}

template <typename T>
void test(DType dtype, int64_t batch, int64_t channels, int64_t pixels, bool channels_last, double unit) {
  const int64_t total = batch * channels * pixels;
  std::vector<T> x(total), grad(total), y(batch * channels), out(total), dx(total), dy(batch * channels);
  for (int64_t i = 0; i < total; ++i)
    x[i] = narrow<T>(float(i * 37 % 101) / 50 - 1), grad[i] = narrow<T>(float(i * 53 % 97) / 50 - 1);
  for (size_t i = 0; i < y.size(); ++i) y[i] = narrow<T>(float(i * 29 % 31) / 31);
  for (const cpu::ReweightKernels* kernels : all_kernels()) {
    for (int threads : {1, 3}) {
      const reweight::Problem problem{dtype, batch, channels, pixels, channels_last, x.data(), y.data()};
      kernels->forward({problem, out.data()}, threads);
      kernels->backward({problem, grad.data(), dx.data(), dy.data(), nullptr}, threads);
      std::vector<double> sum(y.size()), size(y.size());
      for (int64_t i = 0; i < total; ++i) {
        const int64_t c = channels_last ? i % channels : i / pixels % channels;
        const int64_t at = i / (channels * pixels) * channels + c;
        CHECK_NEAR(widen(out[i]), double(widen(x[i])) * widen(y[at]), unit);
        CHECK_NEAR(widen(dx[i]), double(widen(grad[i])) * widen(y[at]), unit);
        sum[at] += double(widen(grad[i])) * widen(x[i]);
        size[at] += fabs(double(widen(grad[i])) * widen(x[i]));
      }
      // The sum is in the wide type, then rounded once to T.
      for (size_t i = 0; i < y.size(); ++i)
        CHECK_NEAR(widen(dy[i]), sum[i], unit * fabs(sum[i]) + 1e-6 * size[i] + 1e-12);
    }
  }
}

}  // namespace

int main() {
  const std::array<int64_t, 3> shapes[] = {{0, 3, 4},   {2, 3, 0},     {1, 1, 1},     {3, 5, 63},
                                           {2, 130, 1}, {2, 70, 1100}, {1, 200, 900}, {1, 1100, 40}};
  for (bool channels_last : {false, true}) {
    for (auto [batch, channels, pixels] : shapes) {
      test<float>(DType::f32, batch, channels, pixels, channels_last, 0x1p-23);
      test<double>(DType::f64, batch, channels, pixels, channels_last, 0x1p-52);
      test<bf16>(DType::bf16, batch, channels, pixels, channels_last, 0x1p-8);
      test<f16>(DType::f16, batch, channels, pixels, channels_last, 0x1p-11);
    }
  }
  return check_result();
}
