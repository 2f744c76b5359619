// The CUDA kernels of reweight, emulated, against the CPU loops (which test_reweight.cpp checks).
#include <vector>

#include "check.h"
#include "cpu/reweight.h"
#include "cuda/reweight.cu"

using namespace dkpnet;
using namespace dkpnet::cuda;

namespace {

// Arrays start `offset` elements after a multiple of 16 bytes; 0: the vectorised kernels.
template <typename T>
struct Array {
  std::vector<T> memory;
  T* data;
  Array(int64_t count, int offset, int salt) : memory(count + 32) {
    const size_t misaligned = reinterpret_cast<uintptr_t>(memory.data()) % 16 / sizeof(T);
    data = memory.data() + (misaligned ? 16 / sizeof(T) - misaligned : 0) + offset;
    for (int64_t i = 0; i < count; ++i) data[i] = narrow<T>(float((i * 37 + salt * 11) % 101) / 50 - 1);
  }
};

template <typename T, int V>
void test(DType dtype, unsigned batch, int64_t channels, int64_t pixels, bool channels_last, double unit) {
  const int64_t total = batch * channels * pixels, planes = batch * channels;
  const int offset = V == 1 ? 1 : 0;
  Array<T> x(total, offset, 1), grad(total, offset, 2), y(planes, offset, 3);
  Array<T> out(total, offset, 4), dx(total, offset, 5), dy(planes, offset, 6);
  Array<T> want_out(total, 0, 0), want_dx(total, 0, 0), want_dy(planes, 0, 0);
  const reweight::Problem problem{dtype, batch, channels, pixels, channels_last, x.data, y.data};
  cpu::reweight().forward({problem, want_out.data}, 1);
  cpu::reweight().backward({problem, grad.data, want_dx.data, want_dy.data, nullptr}, 1);
  const T *from = x.data, *g = grad.data, *weights = y.data;
  auto compare = [&] {
    for (int64_t i = 0; i < total; ++i) CHECK(widen(dx.data[i]) == widen(want_dx.data[i]));
    for (int64_t i = 0; i < planes; ++i) {
      const double want = widen(want_dy.data[i]);
      CHECK_NEAR(widen(dy.data[i]), want, unit * fabs(want) + 1e-6 * double(pixels));
    }
    for (int64_t i = 0; i < total; ++i) dx.data[i] = narrow<T>(7.0f);
    for (int64_t i = 0; i < planes; ++i) dy.data[i] = narrow<T>(7.0f);
  };
  const auto count = [](int64_t items, int64_t per_block) { return unsigned((items + per_block - 1) / per_block); };

  if (channels_last) {
    emulation::launch(count(total, kThreads * V), kThreads, scale_rows_kernel<T, V, uint32_t>, from, weights, out.data,
                      uint32_t(total), uint32_t(channels), uint32_t(pixels));
    const int64_t splits = reweight::splits(pixels);
    std::vector<float> workspace(batch * splits * channels);
    emulation::launch(unsigned(batch * splits) * count(channels, 32 * V), kThreads, backward_rows_kernel<T, V>, g, from,
                      weights, dx.data, workspace.data(), channels, pixels, splits);
    const float* sums = workspace.data();
    emulation::launch(count(planes, kThreads), kThreads, sum_splits_kernel<T>, sums, dy.data, planes, channels, splits);
    compare();
  } else {
    if (pixels >= V)
      emulation::launch(count(total, kThreads * V), kThreads, scale_planes_kernel<T, V, int64_t>, from, weights,
                        out.data, total, pixels);
    else  // as the launcher does
      emulation::launch(count(total, kThreads), kThreads, scale_planes_kernel<T, 1, int64_t>, from, weights, out.data,
                        total, pixels);
    emulation::launch(count(planes, kThreads / 32), kThreads, backward_planes_kernel<T, V, 1>, g, from, weights,
                      dx.data, dy.data, planes, pixels);
    compare();
    emulation::launch(unsigned(planes), kThreads, backward_planes_kernel<T, V, kThreads / 32>, g, from, weights,
                      dx.data, dy.data, planes, pixels);
    compare();
  }
  for (int64_t i = 0; i < total; ++i) CHECK(widen(out.data[i]) == widen(want_out.data[i]));
}

}  // namespace

int main() {
  const int64_t shapes[][2] = {{1, 1}, {3, 2}, {8, 7}, {40, 33}, {24, 513}};
  for (auto [channels, pixels] : shapes) {
    test<float, 4>(DType::f32, 2, channels, pixels, false, 1e-6);
    test<float, 1>(DType::f32, 2, channels, pixels, false, 1e-6);
    test<bf16, 8>(DType::bf16, 2, channels, pixels, false, 0x1p-8);
    test<float, 1>(DType::f32, 2, channels, pixels, true, 1e-6);
    if (channels % 8) continue;  // else the launcher takes single elements
    test<float, 4>(DType::f32, 2, channels, pixels, true, 1e-6);
    test<f16, 8>(DType::f16, 2, channels, pixels, true, 0x1p-11);
  }
  emulation::list_barriers();
  return check_result();
}
