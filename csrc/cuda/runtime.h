// What a kernel's source needs from CUDA; without nvcc the emulation in tests/csrc, which runs the kernels on the CPU.
#pragma once

#ifdef __CUDACC__
#include <cuda_runtime.h>
#else
#include "cuda_emulation.h"
#endif
