// Run-time choice of the instruction set. CMake compiles every csrc/cpu/<stem>.cpp once per set, with DKPNET_ISA naming
// the namespace; a stem puts its entry points into one struct of function pointers:
//
//   csrc/cpu/<stem>.h    struct StemKernels { void (*forward)(...); ... };
//                        DKPNET_CPU_KERNELS(StemKernels, stem)      // callers: cpu::stem().forward(...)
//   csrc/cpu/<stem>.cpp  namespace dkpnet::cpu::DKPNET_ISA {
//                        static void forward(...) {...}
//                        const StemKernels stem{forward, ...};
//                        }
#pragma once

#ifdef DKPNET_X86_LEVELS
#include <cpuid.h>
#endif

namespace dkpnet::cpu {

enum class Isa { baseline, avx2, avx512 };

#ifdef DKPNET_X86_LEVELS
// All that -march=x86-64-v3 and -v4 let the compiler use. __builtin_cpu_supports also asks whether the system saves the
// wide registers. Features for which some compilers have no name are read from cpuid.
inline bool has_x86_64_v3() {
  unsigned a, b, c = 0, d, extended = 0;
  if (!__get_cpuid(1, &a, &b, &c, &d) || !__get_cpuid(0x80000001, &a, &b, &extended, &d)) return false;
  const bool movbe = c & (1u << 22), f16c = c & (1u << 29), cx16 = c & (1u << 13), lzcnt = extended & (1u << 5);
  return movbe && f16c && cx16 && lzcnt && __builtin_cpu_supports("popcnt") && __builtin_cpu_supports("sse4.2") &&
         __builtin_cpu_supports("avx") && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi") &&
         __builtin_cpu_supports("bmi2") && __builtin_cpu_supports("fma");
}
inline bool has_x86_64_v4() {
  return has_x86_64_v3() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512cd");
}
#endif

inline Isa detected_isa() {
#ifdef DKPNET_X86_LEVELS
  static const Isa isa = has_x86_64_v4() ? Isa::avx512 : has_x86_64_v3() ? Isa::avx2 : Isa::baseline;
  return isa;
#else
  return Isa::baseline;
#endif
}

}  // namespace dkpnet::cpu

#ifdef DKPNET_X86_LEVELS
#define DKPNET_CPU_KERNELS(Type, name) \
  namespace baseline {                 \
  extern const Type name;              \
  }                                    \
  namespace avx2 {                     \
  extern const Type name;              \
  }                                    \
  namespace avx512 {                   \
  extern const Type name;              \
  }                                    \
  inline const Type& name() {          \
    switch (detected_isa()) {          \
      case Isa::avx512:                \
        return avx512::name;           \
      case Isa::avx2:                  \
        return avx2::name;             \
      default:                         \
        return baseline::name;         \
    }                                  \
  }
#else
#define DKPNET_CPU_KERNELS(Type, name) \
  namespace baseline {                 \
  extern const Type name;              \
  }                                    \
  inline const Type& name() { return baseline::name; }
#endif
