// Included by every file of csrc/math: the host/device marker and the element types.
#pragma once

#include <stdint.h>
#include <string.h>

// `static inline` on the host, because csrc/cpu is compiled once per instruction set: with external linkage the
// linker could keep the AVX-512 copy of a function for the baseline code.
#ifdef __CUDACC__
#define DKPNET_HD static __host__ __device__ __forceinline__
#define DKPNET_UNROLL _Pragma("unroll")
#else
#define DKPNET_HD static inline
#define DKPNET_UNROLL _Pragma("GCC unroll 16")
#endif

namespace dkpnet {

// The order is that of `native.DTYPES` in dkpnet_ext/ops/native.py.
enum class DType : int { f32 = 0, f64 = 1, bf16 = 2, f16 = 3 };

// Storage types of the two 16-bit formats; arithmetic is in float.
struct bf16 {
  uint16_t bits;
};
struct f16 {
  uint16_t bits;
};

template <typename To, typename From>
DKPNET_HD To bit_cast(From from) {
  static_assert(sizeof(To) == sizeof(From), "bit_cast keeps the size");
  To to;
  memcpy(&to, &from, sizeof to);
  return to;
}

// Positions begin ... end - 1.
struct Span {
  int begin, end;
};

// The type arithmetic is done in: float64 for float64, float32 for the rest.
template <typename T>
struct Wide {
  using type = float;
};
template <>
struct Wide<double> {
  using type = double;
};
template <typename T>
using wide_t = typename Wide<T>::type;

DKPNET_HD float widen(float x) { return x; }
DKPNET_HD double widen(double x) { return x; }
DKPNET_HD float widen(bf16 x) { return bit_cast<float>(uint32_t(x.bits) << 16); }
DKPNET_HD float widen(f16 x) {
  const uint32_t sign = uint32_t(x.bits & 0x8000u) << 16;
  const uint32_t magnitude = uint32_t(x.bits & 0x7fffu) << 13;
  // The exponent is re-biased by a multiplication, which is exact and also normalises the subnormals.
  uint32_t value = bit_cast<uint32_t>(bit_cast<float>(magnitude) * 0x1p112f);
  value = (x.bits & 0x7c00u) == 0x7c00u ? (magnitude | 0x7f800000u) : value;  // infinity, NaN
  return bit_cast<float>(value | sign);
}

template <typename T>
struct Narrow;
template <>
struct Narrow<float> {
  DKPNET_HD float from(float x) { return x; }
};
template <>
struct Narrow<double> {
  DKPNET_HD double from(double x) { return x; }
};
// Both round to nearest, ties to even, and keep NaN.
template <>
struct Narrow<bf16> {
  DKPNET_HD bf16 from(float x) {
    const uint32_t u = bit_cast<uint32_t>(x);
    const uint32_t rounded = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
    return bf16{uint16_t(x != x ? 0x7fc0u : rounded)};
  }
};
template <>
struct Narrow<f16> {
  DKPNET_HD f16 from(float x) {
    const uint32_t u = bit_cast<uint32_t>(x);
    const uint32_t sign = (u >> 16) & 0x8000u;
    const uint32_t a = u & 0x7fffffffu;
    // Below 2^-14 the result is subnormal: adding 0.5 lines its last bit up with float's, and the addition rounds.
    const uint32_t subnormal = bit_cast<uint32_t>(bit_cast<float>(a) + 0.5f) - 0x3f000000u;
    uint32_t normal = (a - 0x38000000u + 0xfffu + ((a >> 13) & 1u)) >> 13;
    normal = normal < 0x7c00u ? normal : 0x7c00u;  // overflows to infinity
    const uint32_t h = a < 0x38800000u ? subnormal : normal;
    return f16{uint16_t((x != x ? 0x7e00u : h) | sign)};
  }
};
template <typename T>
DKPNET_HD T narrow(wide_t<T> x) {
  return Narrow<T>::from(x);
}

// Calls body(T{}) with the element type that `dtype` names.
template <typename Body>
static inline auto with_dtype(DType dtype, const Body& body) {
  switch (dtype) {
    case DType::f64:
      return body(double{});
    case DType::bf16:
      return body(bf16{});
    case DType::f16:
      return body(f16{});
    default:
      return body(float{});
  }
}

// The same for the stems that have no float64.
template <typename Body>
static inline void with_narrow_dtype(DType dtype, const Body& body) {
  switch (dtype) {
    case DType::f64:
      break;
    case DType::bf16:
      return body(bf16{});
    case DType::f16:
      return body(f16{});
    case DType::f32:
      return body(float{});
  }
}

}  // namespace dkpnet
