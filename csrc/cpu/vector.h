// Vectors of floats as wide as the instruction set's registers, read from and written to rows of float or bf16.
// Only for csrc/cpu/*.cpp: everything here differs between the instruction sets, so it is in their namespace.
#pragma once

#include "math/common.h"

namespace dkpnet::cpu::DKPNET_ISA {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64, kRegisters = 32;
#elif defined(__AVX2__)
constexpr int kVectorBytes = 32, kRegisters = 16;
#else
constexpr int kVectorBytes = 16, kRegisters = 16;
#endif
constexpr int kLanes = kVectorBytes / 4;

typedef float Vector __attribute__((vector_size(kVectorBytes)));
typedef float LooseVector __attribute__((vector_size(kVectorBytes), aligned(4), may_alias));
typedef uint32_t Words __attribute__((vector_size(kVectorBytes)));
typedef uint16_t LooseHalves __attribute__((vector_size(kVectorBytes / 2), aligned(2), may_alias));

static inline Vector load(const float* from) { return *reinterpret_cast<const LooseVector*>(from); }
static inline Vector load(const bf16* from) {
  return reinterpret_cast<Vector>(__builtin_convertvector(*reinterpret_cast<const LooseHalves*>(from), Words) << 16);
}
static inline Vector load(const f16* from) {
  float lanes[kLanes];
#pragma omp simd
  for (int lane = 0; lane < kLanes; ++lane) lanes[lane] = widen(from[lane]);
  return load(lanes);
}

static inline void store(float* to, Vector x) { *reinterpret_cast<LooseVector*>(to) = x; }
// narrow<bf16> of every lane.
static inline void store(bf16* to, Vector x) {
  const Words bits = reinterpret_cast<Words>(x);
  const Words rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  *reinterpret_cast<LooseHalves*>(to) = __builtin_convertvector(x == x ? rounded : Words{} + 0x7fc0u, LooseHalves);
}

static inline float sum_of_lanes(Vector x) {
  float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
  for (int lane = 0; lane < kLanes; ++lane) sum += x[lane];
  return sum;
}

// The first `count` lanes; the others are read as zero and not written.
template <typename T>
static inline Vector load(const T* from, int count) {
  if (count >= kLanes) return load(from);
  T lanes[kLanes] = {};
  memcpy(lanes, from, count * sizeof(T));
  return load(lanes);
}
template <typename T>
static inline void store(T* to, Vector x, int count) {
  if (count >= kLanes) return store(to, x);
  T lanes[kLanes];
  store(lanes, x);
  memcpy(to, lanes, count * sizeof(T));
}

}  // namespace dkpnet::cpu::DKPNET_ISA
