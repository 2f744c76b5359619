// csrc/math/common.h, elementary.h and csrc/cpu/parallel.h.
#include <limits>
#include <vector>

#include "check.h"
#include "cpu/parallel.h"
#include "math/elementary.h"

using namespace dkpnet;

namespace {

const float kInfinity = std::numeric_limits<float>::infinity(), kNaN = std::numeric_limits<float>::quiet_NaN();

float through_f16(float x) { return widen(narrow<f16>(x)); }
float through_bf16(float x) { return widen(narrow<bf16>(x)); }

void test_f16() {
  for (uint32_t bits = 0; bits < 0x10000u; ++bits) {  // every value survives
    const f16 h{uint16_t(bits)};
    const float x = widen(h);
    if (x != x)
      CHECK((bits & 0x7c00u) == 0x7c00u && through_f16(x) != through_f16(x));
    else
      CHECK(narrow<f16>(x).bits == bits);
  }
  CHECK(widen(f16{0x3c00}) == 1.0f && widen(f16{0xc000}) == -2.0f && widen(f16{0x0001}) == 0x1p-24f);
  CHECK(through_f16(1.0f + 0x1p-11f) == 1.0f);                // a tie goes to even, down
  CHECK(through_f16(1.0f + 3 * 0x1p-11f) == 1.0f + 0x1p-9f);  // and up
  CHECK(through_f16(1.0f + 0x1p-11f + 0x1p-20f) == 1.0f + 0x1p-10f);
  CHECK(through_f16(65504.0f) == 65504.0f && through_f16(65519.0f) == 65504.0f && through_f16(65520.0f) == kInfinity);
  CHECK(through_f16(-1e9f) == -kInfinity && through_f16(-kInfinity) == -kInfinity);
  CHECK(through_f16(0x1p-25f) == 0.0f && through_f16(1.5f * 0x1p-25f) == 0x1p-24f && through_f16(1e-30f) == 0.0f);
  CHECK(narrow<f16>(-0.0f).bits == 0x8000u);
}

void test_bf16() {
  for (uint32_t bits = 0; bits < 0x10000u; ++bits) {
    const float x = widen(bf16{uint16_t(bits)});
    if (x != x)
      CHECK(through_bf16(x) != through_bf16(x));
    else
      CHECK(narrow<bf16>(x).bits == bits);
  }
  CHECK(through_bf16(1.0f + 0x1p-8f) == 1.0f && through_bf16(1.0f + 3 * 0x1p-8f) == 1.0f + 0x1p-6f);
  CHECK(through_bf16(std::numeric_limits<float>::max()) == kInfinity && through_bf16(kNaN) != through_bf16(kNaN));
}

void test_wide_types_pass_through() {
  CHECK(widen(2.5f) == 2.5f && narrow<float>(2.5f) == 2.5f && widen(2.5) == 2.5 && narrow<double>(2.5) == 2.5);
  auto size_of = [](DType dtype) { return with_dtype(dtype, [](auto type) { return sizeof type; }); };
  CHECK(size_of(DType::f32) == 4 && size_of(DType::f64) == 8 && size_of(DType::bf16) == 2 && size_of(DType::f16) == 2);
}

void test_exp() {
  double worst = 0;
  for (float x = -87.0f; x < 88.7f; x += 0.00311f) worst = fmax(worst, fabs(exp_of(x) / exp(double(x)) - 1));
  CHECK(worst < 1.2e-7);  // one unit in the last place
  for (float x = -103.9f; x < -87.0f; x += 0.01f) CHECK_NEAR(exp_of(x), exp(double(x)), 0x1p-149);  // subnormal results
  CHECK(exp_of(0.0f) == 1.0f && exp_of(-0.0f) == 1.0f);
  CHECK(exp_of(88.73f) == kInfinity && exp_of(kInfinity) == kInfinity && exp_of(-105.0f) == 0.0f);
  CHECK(exp_of(-kInfinity) == 0.0f && exp_of(kNaN) != exp_of(kNaN));
  CHECK(exp_of(1.5) == exp(1.5) && log_of(1.5) == log(1.5) && log_of(1.5f) == logf(1.5f));
}

void test_log_and_angle() {
  const double turn = 6.283185307179586477 / 16777216;
  double log_error = 0, angle_error = 0;
  for (uint32_t i = 1; i <= 1u << 24; i += i < 70000 || i > (1u << 24) - 70000 ? 1 : 89) {
    if (i < 1u << 24) log_error = fmax(log_error, fabs(log_of_24bit(i) / log(i * 0x1p-24) - 1));
    double cosine, sine;
    cos_sin_of_24bit(i - 1, cosine, sine);
    // Relative to the value, except where libm's own argument 2 pi i / 2^24 is rounded: there 1e-16 absolute.
    angle_error = fmax(angle_error, fabs(cosine - cos((i - 1) * turn)) / (fabs(cosine) + 1e-6));
    angle_error = fmax(angle_error, fabs(sine - sin((i - 1) * turn)) / (fabs(sine) + 1e-6));
  }
  CHECK(log_error < 0x1p-38);
  CHECK(angle_error < 0x1p-30);
  CHECK(log_of_24bit(1u << 24) == 0);
  double cosine, sine;
  for (int quarter = 0; quarter < 4; ++quarter) {
    cos_sin_of_24bit(quarter << 22, cosine, sine);  // exact at the axes
    CHECK(cosine == (quarter == 0) - (quarter == 2) && sine == (quarter == 1) - (quarter == 3));
  }
}

void test_parallel_for() {
  for (int threads : {1, 2, 3, 64, 1000})
    for (int64_t count : {0, 1, 2, 7, 100, 1000})
      for (int64_t grain : {0, 1, 10, 5000}) {
        std::vector<int> seen(count, 0);
        cpu::parallel_for(count, grain, threads, [&](int64_t begin, int64_t end) {
          for (int64_t i = begin; i < end; ++i) ++seen[i];
        });
        for (int times : seen) CHECK(times == 1);
      }
}

}  // namespace

int main() {
  test_f16();
  test_bf16();
  test_wide_types_pass_through();
  test_exp();
  test_log_and_angle();
  test_parallel_for();
  return check_result();
}
