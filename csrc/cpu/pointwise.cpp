#include "cpu/pointwise.h"

#include "cpu/parallel.h"
#include "cpu/vector.h"

namespace dkpnet::cpu::DKPNET_ISA {

using namespace pointwise;

template <typename T, Activation kind>
static void mask_of(const Mask& m, int threads) {
  const int64_t size = kRows * m.width, parts = m.count > 0 ? (m.count + size - 1) / size : 0;
  parallel_each(parts, 4, threads, [&](int64_t part) {
    float* sums = m.partials + part * m.width;
    memset(sums, 0, m.width * sizeof(float));
    const int64_t stop = (part + 1) * size < m.count ? (part + 1) * size : m.count;
    for (int64_t row = part * size; row < stop; row += m.width) {
      const int64_t width = stop - row < m.width ? stop - row : m.width;
      const T *grad_out = static_cast<const T*>(m.grad_out) + row, *out = static_cast<const T*>(m.out) + row;
      T* grad = static_cast<T*>(m.grad) + row;
      for (int64_t i = 0; i < width; i += kLanes) {
        const int lanes = width - i < kLanes ? int(width - i) : kLanes;
        Vector before = load(grad_out + i, lanes);
        if constexpr (kind != Activation::none) {
          before = masked<kind>(before, load(out + i, lanes));
          store(grad + i, before, lanes);
        }
        store(sums + i, load(sums + i, lanes) + before, lanes);
      }
    }
  });
}

static void mask(const Mask& m, int threads) {
  with_activation(m.activation, [&](auto kind) {
    if (m.dtype == DType::bf16) return mask_of<bf16, kind.value>(m, threads);
    mask_of<float, kind.value>(m, threads);
  });
}

const PointwiseKernels pointwise_kernels{mask};

}  // namespace dkpnet::cpu::DKPNET_ISA
