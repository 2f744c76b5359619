// exp, log and sin/cos of one value: branch-free, so that the CPU loops vectorise, and the same arithmetic on the GPU.
#pragma once

#include <math.h>

#include "math/common.h"

namespace dkpnet {

// (e^x - 1 - x) / x^2 for |x| <= ln(2) / 2, within 1e-6.
DKPNET_HD float exp_tail_over_square(float x) {
  float p = 1.9875691500e-4f;
  p = p * x + 1.3981999507e-3f;
  p = p * x + 8.3334519073e-3f;
  p = p * x + 4.1665795894e-2f;
  p = p * x + 1.6666665459e-1f;
  return p * x + 5.0000001201e-1f;
}

// e^x within 1 ulp, for every x: subnormal results, overflow to infinity, NaN.
DKPNET_HD float exp_of(float x) {
  x = x < -104.0f ? -104.0f : x;  // below: 0; a comparison with NaN keeps NaN
  x = x > 89.0f ? 89.0f : x;      // above: infinity
  // x = n ln 2 + r, |r| <= ln(2) / 2. Adding 1.5 * 2^23 rounds to an integer and leaves it in the low bits.
  const float shifted = x * 1.44269504f + 12582912.0f;
  const float n = shifted - 12582912.0f;
  const float r = (x - n * 0.693359375f) - n * -2.12194440e-4f;  // n times the first constant is exact
  const float p = exp_tail_over_square(r) * (r * r) + r + 1.0f;
  // 2^n in two factors, since n reaches from -150 to 128.
  const int32_t exponent = bit_cast<int32_t>(shifted) - 0x4b400000;
  const int32_t half = exponent >> 1;
  // Unsigned, because a NaN (whose result p already is) leaves any bits in the exponent.
  const uint32_t low = static_cast<uint32_t>(half + 127) << 23, high = static_cast<uint32_t>(exponent - half + 127)
                                                                       << 23;
  return p * bit_cast<float>(low) * bit_cast<float>(high);
}
DKPNET_HD double exp_of(double x) { return exp(x); }

// e^x - 1 and e^x - 1 - x, with their relative accuracy kept near 0, where the latter is x^2 / 2.
DKPNET_HD float exp_minus_1(float x) {
  const float near = exp_tail_over_square(x) * (x * x) + x, far = exp_of(x) - 1.0f;
  return fabsf(x) < 0.34f ? near : far;
}
DKPNET_HD double exp_minus_1(double x) { return expm1(x); }

DKPNET_HD float exp_minus_1_minus_x(float x) {
  const float near = exp_tail_over_square(x) * (x * x), far = exp_of(x) - 1.0f - x;
  return fabsf(x) < 0.34f ? near : far;
}
DKPNET_HD double exp_minus_1_minus_x(double x) { return expm1(x) - x; }

DKPNET_HD float log_of(float x) { return logf(x); }
DKPNET_HD double log_of(double x) { return log(x); }

// ln(i * 2^-24) for 1 <= i <= 2^24, relative error below 2^-38. In double: a float32 result would use up most of the
// 2 ulp of error that a normal is allowed.
DKPNET_HD double log_of_24bit(uint32_t i) {
  const uint64_t bits = bit_cast<uint64_t>(static_cast<double>(static_cast<int32_t>(i)));
  // Mantissa m in [sqrt(1/2), sqrt(2)): the logarithm of 1 - small keeps its relative accuracy.
  const uint64_t shifted = bits - 0x3fe6a09e00000000ull;
  const int32_t exponent = static_cast<int32_t>(shifted >> 52);  // bits is above the constant, so no sign
  const double m = bit_cast<double>((shifted & 0x000fffffffffffffull) + 0x3fe6a09e00000000ull);
  const double s = (m - 1.0) / (m + 1.0), t = s * s;  // ln m = 2 artanh(s)
  double p = 2.0 / 13;
  p = p * t + 2.0 / 11;
  p = p * t + 2.0 / 9;
  p = p * t + 2.0 / 7;
  p = p * t + 2.0 / 5;
  p = p * t + 2.0 / 3;
  p = p * t + 2.0;
  return s * p + static_cast<double>(exponent - 24) * 0.69314718055994530942;
}

// cos and sin of 2 pi i 2^-24 for 0 <= i < 2^24, relative error below 2^-35: the quadrant is subtracted exactly.
DKPNET_HD void cos_sin_of_24bit(uint32_t i, double& cosine, double& sine) {
  const uint32_t quadrant = (i + (1u << 21)) >> 22;
  const double x = static_cast<double>(static_cast<int32_t>(i - (quadrant << 22))) * (6.283185307179586477 / 16777216);
  const double t = x * x;
  double s = -1.0 / 39916800;
  s = s * t + 1.0 / 362880;
  s = s * t - 1.0 / 5040;
  s = s * t + 1.0 / 120;
  s = s * t - 1.0 / 6;
  s = s * t * x + x;
  double c = 1.0 / 479001600;
  c = c * t - 1.0 / 3628800;
  c = c * t + 1.0 / 40320;
  c = c * t - 1.0 / 720;
  c = c * t + 1.0 / 24;
  c = c * t - 0.5;
  c = c * t + 1.0;
  // Rotation by quadrant * 90 degrees, without branches: (c, s) -> (-s, c) -> (-c, -s) -> (s, -c).
  const bool swap = quadrant & 1u;
  const double a = swap ? s : c, b = swap ? c : s;
  cosine = ((quadrant + 1u) & 2u) ? -a : a;
  sine = (quadrant & 2u) ? -b : b;
}

}  // namespace dkpnet
