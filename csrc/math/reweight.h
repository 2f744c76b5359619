// Channel re-weighting: out = x * y and, backward, dx = dout * y, dy = sum of dout * x over the pixels.
#pragma once

#include "math/common.h"

namespace dkpnet::reweight {

// Arrays are dense and of one dtype: x, out, grad, dx [batch, channels, pixels] (channels_last: [batch, pixels,
// channels]), attention, dattention [batch, channels].
struct Problem {
  DType dtype;
  int64_t batch, channels, pixels;
  bool channels_last;
  const void *x, *attention;
};
struct Forward : Problem {
  void* out;
};
struct Backward : Problem {
  const void* grad;
  void *dx, *dattention;
  void* workspace;  // CUDA with channels_last: the wide type [batch, splits(pixels), channels]; else unused
};

// channels_last: rows (pixels) of an image that one block sums. Fixed, so that the sum's order does not depend on the
// GPU.
constexpr int64_t kSplit = 256;
DKPNET_HD int64_t splits(int64_t pixels) { return (pixels + kSplit - 1) / kSplit; }

template <typename T>
DKPNET_HD T scaled(T x, wide_t<T> attention) {
  return narrow<T>(widen(x) * attention);
}

// One element's share of dy, in the wide type.
template <typename T>
DKPNET_HD wide_t<T> share(T grad, T x) {
  return widen(grad) * widen(x);
}

}  // namespace dkpnet::reweight

namespace dkpnet::cuda {  // see cuda/common.h
int reweight_forward(const reweight::Forward& args, void* stream);
int reweight_backward(const reweight::Backward& args, void* stream);
}  // namespace dkpnet::cuda
