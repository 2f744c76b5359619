// csrc/math/density.h and csrc/cpu/density.cpp, the same code that the GPU kernel is made of.
#include <math.h>

#include <limits>
#include <vector>

#include "check.h"
#include "cpu/density.h"

using namespace dkpnet;
using namespace dkpnet::density;

namespace {

const float kInfinity = std::numeric_limits<float>::infinity(), kNaN = std::numeric_limits<float>::quiet_NaN();

void test_pixel_of() {
  int pixel = -1;
  CHECK(pixel_of(0.0f, 10, pixel) && pixel == 0);
  CHECK(pixel_of(-0.0f, 10, pixel) && pixel == 0);
  CHECK(pixel_of(9.999f, 10, pixel) && pixel == 9);
  for (float outside : {10.0f, -0.001f, -1e30f, 1e30f, kInfinity, -kInfinity, kNaN})
    CHECK(!pixel_of(outside, 10, pixel));
}

void test_radius() {
  CHECK(stamp_radius(4.0f, 1.75f, 1000) == 7);  // the field's 15x15
  CHECK(stamp_radius(2.0f, 1.75f, 1000) == 4);  // a tie rounds up
  CHECK(stamp_radius(1.0f, 0.25f, 1000) == 0);
  CHECK(stamp_radius(1.0f, 0.5f, 1000) == 1);
  CHECK(stamp_radius(kInfinity, 1.75f, 1000) == 1000 && stamp_radius(1e30f, 1.75f, 1000) == 1000);
  for (float point : {0.0f, -3.0f, kNaN, -kInfinity}) CHECK(stamp_radius(point, 1.75f, 1000) == 0);
  CHECK(stamp_weight(stamp_scale(kInfinity, 1000), 999) == 1.0f);  // flat
  for (float sigma : {0.0f, kNaN}) CHECK(stamp_weight(stamp_scale(sigma, 0), 0) == 1.0f);
  CHECK_NEAR(stamp_weight(stamp_scale(4.0f, 7), -7), exp(-49.0 / 32.0), 1e-7);
}

void test_spans() {
  const Span left = stamp_span(2, 7, 100), middle = stamp_span(50, 7, 100), right = stamp_span(99, 7, 100);
  CHECK(left.begin == 0 && left.end == 10);
  CHECK(middle.begin == 43 && middle.end == 58);
  CHECK(right.begin == 92 && right.end == 100);
  const Span tiny = stamp_span(0, 1000, 1);
  CHECK(tiny.begin == 0 && tiny.end == 1);
  const Span first = cell_span(middle, 10, 4), last = cell_span(middle, 14, 4), none = cell_span(middle, 15, 4);
  CHECK(first.begin == 43 && first.end == 44 && last.begin == 56 && last.end == 58 && none.begin >= none.end);
  // The lanes of a warp together take what one thread takes alone.
  const float scale = stamp_scale(20.0f, 50);
  const Span wide = stamp_span(10, 50, 100);
  float lanes = 0.0f;
  for (int lane = 0; lane < 32; ++lane) lanes += span_mass({wide.begin + lane, wide.end}, 32, 10, scale);
  CHECK_NEAR(lanes, span_mass(wide, 1, 10, scale), 1e-4);
}

void test_compensation() {
  float sum = 0.0f, lost = 0.0f, naive = 0.0f;
  for (int i = 0; i < 1000000; ++i) {
    add_compensated(sum, lost, 0.1f);
    naive += 0.1f;
  }
  const double exact = 1e6 * static_cast<double>(0.1f);
  CHECK(fabs(sum - exact) < 0.01);
  CHECK(fabs(naive - exact) > 100.0);  // what it is for
}

std::vector<float> targets(const std::vector<float>& points, const std::vector<int64_t>& offsets, int height, int width,
                           int stride, float sigma, const std::vector<float>& sigmas = {}, int threads = 1) {
  const int64_t batch = offsets.size() - 1, rows = (height + stride - 1) / stride,
                columns = (width + stride - 1) / stride;
  std::vector<float> out(batch * rows * columns, kNaN), memory(batch * workspace(height, width, stride), kNaN);
  cpu::density().forward({points.data(), offsets.data(), sigmas.empty() ? nullptr : sigmas.data(), sigma, 1.75f, batch,
                          static_cast<int64_t>(points.size() / 2), height, width, stride, out.data(), memory.data()},
                         threads);
  return out;
}

double sum(const std::vector<float>& map) {
  double total = 0.0;
  for (float cell : map) total += cell;
  return total;
}

void test_forward() {
  // Stride 1, one head in the middle: the stamp itself.
  const std::vector<float> map = targets({20.7f, 15.2f}, {0, 1}, 31, 41, 1, 4.0f);
  double norm = 0.0;
  for (int d = -7; d <= 7; ++d) norm += exp(-d * d / 32.0);
  for (int y = 0; y < 31; ++y)
    for (int x = 0; x < 41; ++x) {
      const int dy = y - 15, dx = x - 20;
      const bool reached = dy >= -7 && dy <= 7 && dx >= -7 && dx <= 7;
      CHECK_NEAR(map[y * 41 + x], reached ? exp(-(dy * dy + dx * dx) / 32.0) / (norm * norm) : 0.0, 1e-8);
    }

  // Corners, sides that the stride does not divide, heads on one pixel, outside and NaN; an empty image in between.
  const std::vector<float> points{0.0f,  0.0f, 12.9f, 8.9f, 6.0f, 4.0f, 6.5f, 4.5f,
                                  13.0f, 1.0f, -0.1f, 1.0f, kNaN, 1.0f, 3.0f, 3.0f};
  const std::vector<int64_t> offsets{0, 7, 7, 8};
  for (int stride : {1, 2, 3, 4, 50}) {
    const std::vector<float> maps = targets(points, offsets, 9, 13, stride, 4.0f);
    const size_t each = maps.size() / 3;
    CHECK_NEAR(sum({maps.begin(), maps.begin() + each}), 4.0, 1e-6);
    CHECK(sum({maps.begin() + each, maps.begin() + 2 * each}) == 0.0);
    CHECK_NEAR(sum({maps.begin() + 2 * each, maps.end()}), 1.0, 1e-6);
    CHECK(maps == targets(points, offsets, 9, 13, stride, 4.0f, {}, 3));  // the same bits with threads
  }

  // A sigma per head, from a point to a flat stamp, equals one sigma for all where they agree.
  const std::vector<float> sigmas{0.0f, 1.0f, 4.0f, 4.0f, 4.0f, 4.0f, 4.0f, kInfinity};
  const std::vector<float> adaptive = targets(points, offsets, 9, 13, 1, 0.0f, sigmas);
  CHECK_NEAR(sum(adaptive), 5.0, 1e-5);
  CHECK_NEAR(adaptive[2 * 9 * 13], 1.0 / (9 * 13), 1e-8);
  CHECK(targets(points, offsets, 9, 13, 2, 0.0f, std::vector<float>(8, 3.0f)) ==
        targets(points, offsets, 9, 13, 2, 3.0f));
}

}  // namespace

int main() {
  test_pixel_of();
  test_radius();
  test_spans();
  test_compensation();
  test_forward();
  return check_result();
}
