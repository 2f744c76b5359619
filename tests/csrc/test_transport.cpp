// csrc/math/transport.h and csrc/cpu/transport.cpp against Sinkhorn's iterations written out with the whole matrix K.
#include <vector>

#include "check.h"
#include "cpu/transport.h"

using namespace dkpnet;

namespace {

void test(int heads, int height, int width, double scale, double regularisation, int iterations) {
  std::vector<float> density(2 * height * width), points, objective(2), potential(density.size());
  for (size_t i = 0; i < density.size(); ++i) density[i] = float(i * 37 % 101) / 500;
  for (int n = 0; n < heads; ++n)
    points.push_back(float(n * 53 % 97) / 97 * width * 8), points.push_back(float(n * 29 % 89) / 89 * height * 8);
  const int64_t offsets[] = {0, heads, heads};  // the second image has no heads
  transport::Forward args{density.data(),
                          points.data(),
                          offsets,
                          2,
                          heads,
                          height,
                          width,
                          8.0,
                          scale,
                          scale,
                          regularisation,
                          iterations,
                          objective.data(),
                          potential.data(),
                          nullptr};
  std::vector<double> workspace(transport::shape(args).size);
  args.workspace = workspace.data();

  const int cells = height * width;
  double sum = 0, want = 0;
  for (int m = 0; m < cells; ++m) sum += density[m];
  std::vector<double> k(int64_t(heads) * cells), u(heads, heads ? 1.0 / heads : 0), v(cells);
  for (int n = 0; n < heads; ++n)
    for (int m = 0; m < cells; ++m) {
      const double x = (points[2 * n] - (m % width + 0.5) * 8) * scale;
      const double y = (points[2 * n + 1] - (m / width + 0.5) * 8) * scale;
      k[int64_t(n) * cells + m] = exp(-(x * x + y * y) / regularisation);
    }
  for (int i = 0; i < iterations; ++i) {
    for (int m = 0; m < cells; ++m) {
      double total = 0;
      for (int n = 0; n < heads; ++n) total += k[int64_t(n) * cells + m] * u[n];
      v[m] = density[m] / (sum + 1e-6) / (total + 1e-16);
    }
    for (int n = 0; n < heads; ++n) {
      double total = 0;
      for (int m = 0; m < cells; ++m) total += k[int64_t(n) * cells + m] * v[m];
      u[n] = 1.0 / heads / (total + 1e-16);
    }
  }
  for (int m = 0; m < cells; ++m) want += density[m] / (sum + 1e-6) * regularisation * log(v[m] + 1e-16);
  for (int threads : {1, 2}) {
    cpu::transport_kernels().forward(args, threads);
    for (int m = 0; m < cells && heads; ++m) CHECK_NEAR(potential[m], regularisation * log(v[m] + 1e-16), 1e-3);
    CHECK_NEAR(objective[0], heads ? want : 0.0, 1e-3);
    CHECK(objective[1] == 0 && potential[cells] == 0);
  }
}

}  // namespace

int main() {
  for (int heads : {0, 1, 20}) test(heads, 12, 9, 1.0, 10.0, 5);
  test(15, 30, 30, 1.0, 10.0, 7);      // windows smaller than the grid
  test(15, 10, 20, 1 / 80.0, 1.0, 5);  // every head reaches every cell
  CHECK(transport::factor(4.0, 0, 10.0, 1.0, 8.0) == 1.0 && transport::factor(1e4, 0, 10.0, 1.0, 8.0) == 0.0);
  CHECK(transport::window_begin(0.0, 10.0, 1.0, 8.0, 8, 30) == 0);
  CHECK(transport::window_begin(1e6, 10.0, 1.0, 8.0, 8, 30) == 22);
  return check_result();
}
