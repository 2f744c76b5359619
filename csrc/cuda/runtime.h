// What a kernel's source needs of CUDA; without nvcc, the emulation of tests/csrc, which runs the kernels on the CPU.
#pragma once

#ifdef __CUDACC__
#include <cuda_runtime.h>
#else
#include "cuda_emulation.h"
#endif
