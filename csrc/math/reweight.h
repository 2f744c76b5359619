// Channel re-weighting, one element: out = x * y and, backward, dx = dout * y, dy = sum dout * x.
#pragma once

#include "math/common.h"

namespace dkpnet::reweight {

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
