// Tensor core building blocks for 16-bit types, sm_80 and newer. Fragment layouts as in the PTX manual, mma.m16n8k16:
// with g = lane / 4 and t = lane % 4, a lane holds
//   A [16 x 16]  rows g, g + 8; columns 2t, 2t+1, 2t+8, 2t+9  (registers: (g,2t) (g+8,2t) (g,2t+8) (g+8,2t+8))
//   B [16 x 8]   rows 2t, 2t+1, 2t+8, 2t+9; column g
//   C [16 x 8]   (g,2t) (g,2t+1) (g+8,2t) (g+8,2t+1), float
// so the C fragments of two neighbouring column tiles, rounded, are the A fragment of the next product.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "math/common.h"

namespace dkpnet::cuda {

// Two floats to two 16-bit values, the first in the low half, and back.
template <typename T>
__device__ uint32_t pack(float low, float high);
template <>
__device__ __forceinline__ uint32_t pack<bf16>(float low, float high) {
  return bit_cast<uint32_t>(__floats2bfloat162_rn(low, high));
}
template <>
__device__ __forceinline__ uint32_t pack<f16>(float low, float high) {
  return bit_cast<uint32_t>(__floats2half2_rn(low, high));
}

template <typename T>
__device__ float2 unpack(uint32_t pair);
template <>
__device__ __forceinline__ float2 unpack<bf16>(uint32_t pair) {
  return make_float2(__uint_as_float(pair << 16), __uint_as_float(pair & 0xffff0000u));
}
template <>
__device__ __forceinline__ float2 unpack<f16>(uint32_t pair) {
  return __half22float2(bit_cast<__half2>(pair));
}

// Four 8x8 matrices of 16-bit values from shared memory; lane l gives the address of row l % 8 of matrix l / 8 (16-byte
// aligned) and receives, of each matrix, row l / 4, columns 2 (l % 4) and the next; with Transposed, of its transpose.
template <bool Transposed>
__device__ __forceinline__ void load_matrices(uint32_t (&out)[4], const void* row) {
  const uint32_t address = static_cast<uint32_t>(__cvta_generic_to_shared(row));
  if (Transposed)
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                 : "r"(address)
                 : "memory");
  else
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                 : "r"(address)
                 : "memory");
}

// c += a * b
template <typename T>
__device__ void multiply_add(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1);
template <>
__device__ __forceinline__ void multiply_add<bf16>(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, "
      "%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
template <>
__device__ __forceinline__ void multiply_add<f16>(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, "
      "%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

}  // namespace dkpnet::cuda
