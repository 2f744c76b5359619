// The CUDA kernel of transport, emulated, against the CPU loops (which test_transport.cpp checks).
#include <limits>
#include <vector>

#include "check.h"
#include "cpu/transport.h"
#include "cuda/transport.cu"

using namespace dkpnet;

namespace {

const float kNaN = std::numeric_limits<float>::quiet_NaN();

void test(const std::vector<int64_t>& offsets, int height, int width, double scale, double regularisation,
          int iterations, bool easy = false) {
  const int64_t batch = int64_t(offsets.size()) - 1, heads = offsets.back(), cells = int64_t(height) * width;
  std::vector<float> density(batch * cells), points, objective(batch, kNaN), potential(batch * cells, kNaN);
  for (size_t i = 0; i < density.size(); ++i) density[i] = easy ? 1.0f : float(i * 37 % 101) / 500;
  for (int64_t n = 0; n < heads; ++n)
    points.push_back(float(n * 53 % 97) / 97 * width * 8), points.push_back(float(n * 29 % 89) / 89 * height * 8);
  transport::Forward args{density.data(),
                          points.data(),
                          offsets.data(),
                          batch,
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
  const transport::Shape shape = transport::shape(args);
  std::vector<double> workspace(shape.size, std::numeric_limits<double>::quiet_NaN());
  args.workspace = workspace.data();
  cpu::transport_kernels().forward(args, 1);
  std::vector<float> got_objective(batch, kNaN), got(batch * cells, kNaN);
  args.objective = got_objective.data(), args.potential = got.data();
  workspace.assign(shape.size, std::numeric_limits<double>::quiet_NaN());
  emulation::launch(unsigned(batch), cuda::kThreads, cuda::transport_kernel, args, shape);
  for (size_t i = 0; i < got.size(); ++i) CHECK_NEAR(got[i], potential[i], 1e-5 * (1 + fabs(potential[i])));
  for (int64_t i = 0; i < batch; ++i) CHECK_NEAR(got_objective[i], objective[i], 1e-5 * (1 + fabs(objective[i])));
}

}  // namespace

int main() {
  test({0, 20, 20, 21}, 12, 9, 1.0, 10.0, 12);    // windows smaller than the grid; an image without heads; one head
  test({0, 15}, 6, 20, 1 / 80.0, 1.0, 11);        // every head reaches every cell
  test({0, 9}, 3, 3, 1 / 800.0, 10.0, 25, true);  // stops early
  emulation::list_barriers();
  return check_result();
}
