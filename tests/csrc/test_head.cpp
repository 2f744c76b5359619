// The attended head's CPU loops against plain double-precision loops, for every instruction set that runs here.
#include <stdlib.h>

#include <vector>

#include "check.h"
#include "cpu/head.h"

using namespace dkpnet;
using namespace dkpnet::head;

namespace {

template <typename T>
std::vector<T> random_values(size_t count, float scale = 1.0f) {
  std::vector<T> values(count);
  for (T& value : values) value = narrow<T>(scale * (float(rand()) / float(RAND_MAX) - 0.5f));
  return values;
}

// Weight of `source` in output `position` straight from the definition.
double definition(int position, int source, int in, int out) {
  double at = (position + 0.5) * in / out - 0.5;
  if (at < 0) at = 0;
  const int low = int(at + 1e-9), high = low + 1 < in ? low + 1 : in - 1;
  return (low == source ? 1.0 - (at - low) : 0.0) + (high == source ? at - low : 0.0);
}

void check_bilinear() {
  const int sizes[][2] = {{1, 1}, {1, 5}, {2, 3}, {3, 3}, {7, 25}, {25, 100}, {50, 100}, {13, 5}, {32767, 32767}};
  for (const auto& size : sizes) {
    const int in = size[0], out = size[1], step = in > 1000 ? 997 : 1;
    for (int source = 0; source < in; source += step) {
      const Span reach = bilinear_reach(source, in, out);
      CHECK(reach.begin >= 0 && reach.end <= out);
      for (int position = 0; position < out; position += step) {
        const double expected = definition(position, source, in, out);
        CHECK_NEAR(bilinear_weight(position, source, in, out), expected, 1e-6);
        if (expected > 1e-6) CHECK(position >= reach.begin && position < reach.end);
      }
    }
  }
}

struct Case {
  int batch, channels, height, width, hidden1, hidden2;
  std::vector<std::pair<int, int>> products;
  bool channels_last;
};

template <typename T>
void check_case(const cpu::HeadKernels& kernels, const Case& c, int threads, double tolerance) {
  const int pixels = c.height * c.width;
  const auto fine = random_values<T>(size_t(c.batch) * c.channels * pixels);
  const auto fine_weight = random_values<T>(size_t(c.batch) * c.channels * c.hidden1, 0.5f);
  const auto bias = random_values<float>(size_t(c.batch) * c.hidden1);
  const auto weight2 = random_values<float>(size_t(c.hidden2) * c.hidden1, 0.5f),
             bias2 = random_values<float>(c.hidden2);
  const auto weight3 = random_values<float>(c.hidden2), bias3 = random_values<float>(1);
  const auto grad = random_values<T>(size_t(c.batch) * pixels);
  std::vector<std::vector<T>> products;

  Problem problem{};
  problem.dtype = sizeof(T) == 4 ? DType::f32 : std::is_same<T, bf16>::value ? DType::bf16 : DType::f16;
  problem.batch = c.batch, problem.height = c.height, problem.width = c.width, problem.channels = c.channels;
  problem.hidden1 = c.hidden1, problem.hidden2 = c.hidden2, problem.fine = fine.data();
  problem.fine_batch = int64_t(c.channels) * pixels;
  problem.fine_channel = c.channels_last ? 1 : pixels, problem.fine_pixel = c.channels_last ? c.channels : 1;
  problem.fine_weight = fine_weight.data(), problem.fine_weight_batch = int64_t(c.channels) * c.hidden1;
  problem.count = int(c.products.size());
  problem.bias = bias.data(), problem.weight2 = weight2.data(), problem.bias2 = bias2.data();
  problem.weight3 = weight3.data(), problem.bias3 = bias3.data();
  for (int j = 0; j < problem.count; ++j) {
    const auto [rows, columns] = c.products[j];
    products.push_back(random_values<T>(size_t(c.batch) * rows * columns * c.hidden1));
    problem.products[j] = {products[j].data(), rows, columns};
  }

  const int parts = (pixels + kPart - 1) / kPart, size = gradient_size(c.hidden1, c.hidden2);
  std::vector<T> density(grad.size()), grad_hidden(grad.size() * c.hidden1);
  std::vector<float> partials(size_t(c.batch) * parts * size, 1e9f);
  kernels.forward({problem, density.data()}, threads);
  kernels.backward({problem, grad.data(), grad_hidden.data(), partials.data()}, threads);

  // A ReLU near its kink may fall on either side in float: such pixels do not take part in the gradient checks.
  std::vector<double> sums(size, 0.0);
  bool kink = false;
  for (int b = 0; b < c.batch; ++b)
    for (int p = 0; p < pixels; ++p) {
      std::vector<double> hidden1(c.hidden1), hidden2(c.hidden2), grad1(c.hidden1, 0.0);
      const double upstream = widen(grad[size_t(b) * pixels + p]);
      double out = bias3[0];
      bool near_kink = false;
      for (int h = 0; h < c.hidden1; ++h) {
        double sum = bias[size_t(b) * c.hidden1 + h];
        for (int k = 0; k < c.channels; ++k)
          sum += double(widen(fine[b * problem.fine_batch + k * problem.fine_channel + p * problem.fine_pixel])) *
                 widen(fine_weight[(size_t(b) * c.channels + k) * c.hidden1 + h]);
        for (int j = 0; j < problem.count; ++j) {
          const auto [rows, columns] = c.products[j];
          for (int y = 0; y < rows; ++y) {
            const double by_row = definition(p / c.width, y, rows, c.height);
            if (by_row == 0) continue;
            for (int x = 0; x < columns; ++x)
              sum += by_row * definition(p % c.width, x, columns, c.width) *
                     widen(products[j][((size_t(b) * rows + y) * columns + x) * c.hidden1 + h]);
          }
        }
        near_kink |= fabs(sum) < 1e-5;
        hidden1[h] = sum > 0 ? sum : 0;
      }
      for (int r = 0; r < c.hidden2; ++r) {
        double sum = bias2[r];
        for (int h = 0; h < c.hidden1; ++h) sum += weight2[size_t(r) * c.hidden1 + h] * hidden1[h];
        near_kink |= fabs(sum) < 1e-5;
        hidden2[r] = sum > 0 ? sum : 0;
        out += weight3[r] * hidden2[r];
        const double grad2 = sum > 0 ? upstream * weight3[r] : 0;
        for (int h = 0; h < c.hidden1; ++h) {
          grad1[h] += grad2 * weight2[size_t(r) * c.hidden1 + h];
          sums[r * c.hidden1 + h] += grad2 * hidden1[h];
        }
        sums[c.hidden2 * c.hidden1 + r] += grad2;
        sums[c.hidden2 * (c.hidden1 + 1) + r] += upstream * hidden2[r];
      }
      CHECK_NEAR(widen(density[size_t(b) * pixels + p]), out, tolerance);
      kink |= near_kink;
      for (int h = 0; h < c.hidden1; ++h) {
        const double expected = hidden1[h] > 0 ? grad1[h] : 0;
        sums[c.hidden2 * (c.hidden1 + 2) + h] += expected;
        if (!near_kink) CHECK_NEAR(widen(grad_hidden[(size_t(b) * pixels + p) * c.hidden1 + h]), expected, tolerance);
      }
      sums[size - 1] += upstream;
    }
  for (int i = 0; i < size && !kink; ++i) {
    double sum = 0.0;
    for (int part = 0; part < c.batch * parts; ++part) sum += partials[size_t(part) * size + i];
    CHECK_NEAR(sum, sums[i], 1e-4 + 1e-4 * fabs(sums[i]));
  }

  // The adjoint: <upsample(u), v> = <u, downsample(v)>, checked entry by entry.
  for (int j = 0; j < problem.count; ++j) {
    const auto [rows, columns] = c.products[j];
    std::vector<T> out(size_t(c.batch) * rows * columns * c.hidden1);
    kernels.downsample(
        {problem.dtype, c.batch, c.hidden1, c.height, c.width, rows, columns, grad_hidden.data(), out.data()}, threads);
    for (int b = 0; b < c.batch; ++b)
      for (int y = 0; y < rows; ++y)
        for (int x = 0; x < columns; ++x)
          for (int h = 0; h < c.hidden1; h += 5) {
            double sum = 0.0;
            for (int p = 0; p < pixels; ++p)
              sum += definition(p / c.width, y, rows, c.height) * definition(p % c.width, x, columns, c.width) *
                     widen(grad_hidden[(size_t(b) * pixels + p) * c.hidden1 + h]);
            CHECK_NEAR(widen(out[((size_t(b) * rows + y) * columns + x) * c.hidden1 + h]), sum,
                       tolerance * (1.0 + fabs(sum)));
          }
  }
}

void check_kernels(const cpu::HeadKernels& kernels) {
  const Case cases[] = {
      {2, 5, 9, 13, 64, 32, {{5, 7}, {3, 4}}, false},
      {1, 70, 23, 29, 64, 32, {{12, 15}}, true},      // two chunks of channels, two parts
      {2, 0, 8, 9, 16, 16, {{4, 5}, {8, 9}}, false},  // no branch at the output's size; one product that is
      {1, 3, 1, 1, 48, 128, {}, true},
      {0, 3, 4, 4, 64, 32, {{2, 2}}, false},
  };
  for (const Case& c : cases)
    for (int threads = 1; threads <= 3; threads += 2) {
      check_case<float>(kernels, c, threads, 2e-5);
      check_case<bf16>(kernels, c, threads, 2e-2);
      check_case<f16>(kernels, c, threads, 3e-3);
    }
}

}  // namespace

int main() {
  check_bilinear();
  check_kernels(cpu::baseline::head);
#ifdef DKPNET_X86_LEVELS
  if (cpu::detected_isa() >= cpu::Isa::avx2) check_kernels(cpu::avx2::head);
  if (cpu::detected_isa() >= cpu::Isa::avx512) check_kernels(cpu::avx512::head);
#endif
  check_kernels(cpu::head());
  return check_result();
}
