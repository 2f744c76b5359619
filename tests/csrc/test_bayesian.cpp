// csrc/math/bayesian.h and csrc/cpu/bayesian.cpp against the loss written out with all posteriors.
#include <vector>

#include "check.h"
#include "cpu/bayesian.h"

using namespace dkpnet;

namespace {

void test(int heads, int height, int width, bayesian::Form form, double ratio) {
  const int cells = height * width;
  std::vector<float> density(2 * cells), points, loss(2), slope(density.size());
  for (size_t i = 0; i < density.size(); ++i) density[i] = float(i * 37 % 101) / 500;
  for (int n = 0; n < heads; ++n)
    points.push_back(float(n * 53 % 97) / 97 * width * 8), points.push_back(float(n * 29 % 89) / 89 * height * 8);
  const int64_t offsets[] = {0, heads, heads};  // the second image has no heads
  const float sides[] = {100.0f, 100.0f};
  std::vector<double> workspace(bayesian::workspace(1, heads, height, width));
  const bayesian::Forward args{density.data(), points.data(),   offsets, nullptr, sides, 2,    heads,
                               height,         width,           8.0,     8.0,     ratio, form, loss.data(),
                               slope.data(),   workspace.data()};

  std::vector<double> posterior(int64_t(heads + 1) * cells), expected(heads + 1);
  double empty = 0, want = 0;
  for (int m = 0; m < cells; ++m) {
    double nearest = 1e30, total = 0;
    std::vector<double> distance(heads + 1);
    for (int n = 0; n < heads; ++n) {
      const double x = (m % width + 0.5) * 8 - points[2 * n], y = (m / width + 0.5) * 8 - points[2 * n + 1];
      distance[n] = x * x + y * y;
      nearest = distance[n] < nearest ? distance[n] : nearest;
    }
    distance[heads] = bayesian::background_distance(nearest, ratio * 100, form);
    double least = distance[heads] < nearest ? distance[heads] : nearest;
    for (double d : distance) total += exp(-(d - least) / 128);
    for (int n = 0; n <= heads && heads; ++n) {
      posterior[int64_t(n) * cells + m] = exp(-(distance[n] - least) / 128) / total;
      expected[n] += posterior[int64_t(n) * cells + m] * density[m];
    }
    empty += density[cells + m];
  }
  for (int n = 0; n < heads; ++n) want += fabs(1 - expected[n]);
  want += fabs(expected[heads]);
  for (int threads : {1, 2}) {
    cpu::bayesian_kernels().forward(args, threads);
    if (heads) CHECK_NEAR(loss[0], want, 1e-4 * (1 + want));
    CHECK_NEAR(loss[1], empty, 1e-4 * (1 + empty));
    for (int m = 0; m < cells && heads; ++m) {
      double grad = posterior[int64_t(heads) * cells + m] * bayesian::sign_of(expected[heads]);
      for (int n = 0; n < heads; ++n) grad += posterior[int64_t(n) * cells + m] * bayesian::sign_of(expected[n] - 1);
      CHECK_NEAR(slope[m], grad, 1e-5);
    }
    CHECK_NEAR(slope[cells], 1.0, 1e-6);
  }
}

}  // namespace

int main() {
  for (int heads : {0, 1, 20}) {
    test(heads, 12, 9, bayesian::Form::paper, 0.15);
    test(heads, 7, 16, bayesian::Form::code2021, 1.0);
  }
  CHECK(bayesian::sign_of(0.0) == 0 && bayesian::sign_of(-2.0) == -1 && bayesian::sign_of(3.0) == 1);
  return check_result();
}
