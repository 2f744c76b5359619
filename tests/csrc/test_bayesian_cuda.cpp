// The CUDA kernel of the Bayesian loss, emulated, against the CPU loops (which test_bayesian.cpp checks).
#include <limits>
#include <vector>

#include "check.h"
#include "cpu/bayesian.h"
#include "cuda/bayesian.cu"

using namespace dkpnet;

namespace {

const float kNaN = std::numeric_limits<float>::quiet_NaN();

void test(const std::vector<int64_t>& offsets, int height, int width, bayesian::Form form, double ratio, bool targets) {
  const int64_t batch = int64_t(offsets.size()) - 1, heads = offsets.back(), cells = int64_t(height) * width;
  std::vector<float> density(batch * cells), points, wanted(heads, 0.5f), sides(batch, 100.0f);
  std::vector<float> loss(batch, kNaN), slope(batch * cells, kNaN), got_loss(loss), got(slope);
  for (size_t i = 0; i < density.size(); ++i) density[i] = float(i * 37 % 101) / 500;
  for (int64_t n = 0; n < heads; ++n)
    points.push_back(float(n * 53 % 97) / 97 * width * 8), points.push_back(float(n * 29 % 89) / 89 * height * 8);
  std::vector<double> workspace(bayesian::workspace(batch, heads, height, width));
  bayesian::Forward args{density.data(),
                         points.data(),
                         offsets.data(),
                         targets ? wanted.data() : nullptr,
                         sides.data(),
                         batch,
                         heads,
                         height,
                         width,
                         8.0,
                         8.0,
                         ratio,
                         form,
                         loss.data(),
                         slope.data(),
                         workspace.data()};
  cpu::bayesian_kernels().forward(args, 1);
  args.loss = got_loss.data(), args.slope = got.data();
  workspace.assign(workspace.size(), std::numeric_limits<double>::quiet_NaN());
  emulation::launch(unsigned(batch), cuda::kThreads, cuda::bayesian_kernel, args);
  for (size_t i = 0; i < got.size(); ++i) CHECK_NEAR(got[i], slope[i], 1e-5);
  for (int64_t i = 0; i < batch; ++i) CHECK_NEAR(got_loss[i], loss[i], 1e-5 * (1 + loss[i]));
}

}  // namespace

int main() {
  test({0, 20, 20, 21}, 12, 9, bayesian::Form::paper, 0.15, false);
  test({0, 40}, 24, 28, bayesian::Form::code2021, 1.0, true);  // more cells than threads, more heads than warps
  emulation::list_barriers();
  return check_result();
}
