// Philox-4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011) and the normals made of it.
// The mapping from (seed, element) to noise is that of dkpnet_ext/ops/philox.py: bits are equal in every backend,
// normals within 2 ulp of float64 Box-Muller rounded to float32.
#pragma once

#include "math/elementary.h"

namespace dkpnet {

constexpr uint32_t kNormalStream = 0, kDropoutStream = 1;

struct PhiloxBlock {
  uint32_t word[4];
};

DKPNET_HD uint32_t multiply_high(uint32_t a, uint32_t b) { return static_cast<uint32_t>((uint64_t(a) * b) >> 32); }

// Block q of a stream: the noise of elements 4q to 4q + 3.
DKPNET_HD PhiloxBlock philox(uint64_t seed, uint64_t q, uint32_t stream) {
  uint32_t k0 = static_cast<uint32_t>(seed), k1 = static_cast<uint32_t>(seed >> 32);
  uint32_t c0 = static_cast<uint32_t>(q), c1 = static_cast<uint32_t>(q >> 32), c2 = stream, c3 = 0;
  DKPNET_UNROLL
  for (int round = 0; round < 10; ++round) {
    const uint32_t h0 = multiply_high(0xd2511f53u, c0), l0 = 0xd2511f53u * c0;
    const uint32_t h1 = multiply_high(0xcd9e8d57u, c2), l1 = 0xcd9e8d57u * c2;
    c0 = h1 ^ c1 ^ k0;
    c1 = l1;
    c2 = h0 ^ c3 ^ k1;
    c3 = l0;
    k0 += 0x9e3779b9u;
    k1 += 0xbb67ae85u;
  }
  return PhiloxBlock{{c0, c1, c2, c3}};
}

// Two normals of two words (Box-Muller); the uniforms are the words' top 24 bits, u1 in (0, 1], u2 in [0, 1).
DKPNET_HD void normal_pair(uint32_t first, uint32_t second, float& even, float& odd) {
  const double radius = sqrt(-2.0 * log_of_24bit((first >> 8) + 1u));
  double cosine, sine;
  cos_sin_of_24bit(second >> 8, cosine, sine);
  even = static_cast<float>(radius * cosine);
  odd = static_cast<float>(radius * sine);
}

DKPNET_HD float normal(uint64_t seed, uint64_t element) {
  const PhiloxBlock block = philox(seed, element >> 2, kNormalStream);
  float even, odd;
  if (element & 2u)
    normal_pair(block.word[2], block.word[3], even, odd);
  else
    normal_pair(block.word[0], block.word[1], even, odd);
  return element & 1u ? odd : even;
}

// Whether dropout keeps this element; threshold = floor(p * 2^32).
DKPNET_HD bool kept(uint64_t seed, uint64_t element, uint32_t threshold) {
  return philox(seed, element >> 2, kDropoutStream).word[element & 3u] >= threshold;
}

}  // namespace dkpnet
