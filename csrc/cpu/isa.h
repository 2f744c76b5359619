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

namespace dkpnet::cpu {

enum class Isa { baseline, avx2, avx512 };

inline Isa detected_isa() {
#ifdef DKPNET_X86_LEVELS
  static const Isa isa =
      __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw") &&
              __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512cd")
          ? Isa::avx512
      : __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2")
          ? Isa::avx2
          : Isa::baseline;
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
