// Activations that are applied as a convolution's result is stored, and their masks in the backward pass.
#pragma once

#include "math/common.h"

namespace dkpnet {

// The order is that of `ACTIVATIONS` in dkpnet_ext/ops/depthwise.py.
enum class Activation : int { none = 0, relu = 1, relu6 = 2 };

// Value: float, or a vector of floats. NaN stays NaN.
template <Activation kind, typename Value>
DKPNET_HD Value activated(Value x) {
  if constexpr (kind != Activation::none) x = x < Value{} ? Value{} : x;
  if constexpr (kind == Activation::relu6) x = x > Value{} + 6.0f ? Value{} + 6.0f : x;
  return x;
}

// The gradient before the activation; `out` is the value after it. As in PyTorch, a NaN lets the gradient pass.
template <Activation kind, typename Value>
DKPNET_HD Value masked([[maybe_unused]] Value grad, [[maybe_unused]] Value out) {
  if constexpr (kind != Activation::none) grad = out <= Value{} ? Value{} : grad;
  if constexpr (kind == Activation::relu6) grad = out >= Value{} + 6.0f ? Value{} : grad;
  return grad;
}

// Calls body(constant) with a type whose `value` is the activation.
template <Activation kind>
struct ActivationConstant {
  static constexpr Activation value = kind;
};
template <typename Body>
static inline void with_activation(Activation activation, const Body& body) {
  switch (activation) {
    case Activation::relu:
      return body(ActivationConstant<Activation::relu>{});
    case Activation::relu6:
      return body(ActivationConstant<Activation::relu6>{});
    default:
      return body(ActivationConstant<Activation::none>{});
  }
}

}  // namespace dkpnet
