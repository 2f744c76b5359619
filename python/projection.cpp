#include "cpu/projection.h"

#include "bindings.h"

namespace dkpnet {

using projection::Forward;

void bind_projection(py::module_& module) {
  Direction<Forward>("projection_forward", cpu::projection_kernels().forward, nullptr)
      .field("dtype", &Forward::dtype)
      .field("out_dtype", &Forward::out_dtype)
      .field("pairs", &Forward::pairs)
      .field("batch", &Forward::batch)
      .field("height", &Forward::height)
      .field("width", &Forward::width)
      .field("in_channels", &Forward::in_channels)
      .field("out_channels", &Forward::out_channels)
      .field("activation", &Forward::activation)
      .field("input", &Forward::in)
      .field("weight", &Forward::weight)
      .field("bias", &Forward::bias)
      .field("coarse", &Forward::coarse)
      .field("out", &Forward::out)
      .bind(module);
  module.attr("PROJECTION_UNIT") = projection::kOutUnit;
}

}  // namespace dkpnet
