#include "cpu/pointwise.h"

#include "bindings.h"

namespace dkpnet {

using pointwise::Mask;

void bind_pointwise(py::module_& module) {
  Direction<Mask>("pointwise_mask", cpu::pointwise_kernels().mask, nullptr)
      .field("dtype", &Mask::dtype)
      .field("count", &Mask::count)
      .field("width", &Mask::width)
      .field("activation", &Mask::activation)
      .field("grad_out", &Mask::grad_out)
      .field("out", &Mask::out)
      .field("grad", &Mask::grad)
      .field("partials", &Mask::partials)
      .bind(module);
  module.attr("POINTWISE_UNIT") = pointwise::kUnit;
  module.attr("POINTWISE_ROWS") = pointwise::kRows;
}

}  // namespace dkpnet
