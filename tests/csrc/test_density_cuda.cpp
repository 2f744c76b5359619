// The CUDA kernel of density targets, emulated, against the CPU loops (which test_density.cpp checks).
#include <limits>
#include <vector>

#include "check.h"
#include "cpu/density.h"
#include "cuda/density.cu"

using namespace dkpnet;

namespace {

const float kInfinity = std::numeric_limits<float>::infinity(), kNaN = std::numeric_limits<float>::quiet_NaN();

void test(const std::vector<float>& points, const std::vector<int64_t>& offsets, int height, int width, int stride,
          const std::vector<float>& sigmas) {
  const int rows = (height + stride - 1) / stride, columns = (width + stride - 1) / stride;
  const int down = (rows + cuda::kTileRows - 1) / cuda::kTileRows;
  const int across = (columns + cuda::kTileColumns - 1) / cuda::kTileColumns;
  const int64_t batch = int64_t(offsets.size()) - 1;
  std::vector<float> want(batch * rows * columns, kNaN), got(want);
  std::vector<float> workspace(batch * density::workspace(height, width, stride), kNaN);
  density::Forward args{points.data(),
                        offsets.data(),
                        sigmas.empty() ? nullptr : sigmas.data(),
                        4.0f,
                        1.75f,
                        batch,
                        int64_t(points.size() / 2),
                        height,
                        width,
                        stride,
                        want.data(),
                        workspace.data()};
  cpu::density().forward(args, 1);
  args.out = got.data();
  emulation::launch(unsigned(batch * down * across), cuda::kThreads, cuda::density_kernel, args, down, across);
  for (size_t i = 0; i < want.size(); ++i) CHECK_NEAR(got[i], want[i], 1e-6 * (1 + fabs(want[i])));
}

}  // namespace

int main() {
  // Two chunks of 256 heads in the first image, more than one group of 64 in a tile; an empty image; heads outside.
  std::vector<float> points, sigmas;
  for (int i = 0; i < 300; ++i) {
    points.push_back(float(i * 37 % 700) / 10.0f);
    points.push_back(float(i * 53 % 210) / 10.0f);
    sigmas.push_back(0.5f + float(i % 9));
  }
  points[2] = -1.0f, points[5] = kNaN, points[6] = 70.0f, sigmas[4] = 0.0f, sigmas[5] = kInfinity;
  for (int stride : {1, 3}) {
    test(points, {0, 290, 290, 300}, 21, 70, stride, {});
    test(points, {0, 290, 290, 300}, 21, 70, stride, sigmas);
  }
  test({0.0f, 0.0f}, {0, 1}, 1, 1, 1, {});
  emulation::list_barriers();
  return check_result();
}
