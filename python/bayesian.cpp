#include "cpu/bayesian.h"

#include "bindings.h"

namespace dkpnet {

using bayesian::Forward;

void bind_bayesian(py::module_& module) {
  Direction<Forward>("bayesian_forward", cpu::bayesian_kernels().forward, DKPNET_CUDA_ONLY(cuda::bayesian_forward))
      .field("density", &Forward::density)
      .field("points", &Forward::points)
      .field("offsets", &Forward::offsets)
      .field("targets", &Forward::targets)
      .field("sides", &Forward::sides)
      .field("batch", &Forward::batch)
      .field("num_points", &Forward::num_points)
      .field("height", &Forward::height)
      .field("width", &Forward::width)
      .field("stride", &Forward::stride)
      .field("sigma", &Forward::sigma)
      .field("ratio", &Forward::ratio)
      .field("form", &Forward::form)
      .field("loss", &Forward::loss)
      .field("slope", &Forward::slope)
      .field("workspace", &Forward::workspace)
      .bind(module);
  module.def("bayesian_workspace", &bayesian::workspace);
}

}  // namespace dkpnet
