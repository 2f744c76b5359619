#include "cpu/density.h"

#include "bindings.h"

namespace dkpnet {

using density::Forward;

void bind_density(py::module_& module) {
  Direction<Forward>("density_forward", cpu::density().forward, DKPNET_CUDA_ONLY(cuda::density_forward))
      .field("points", &Forward::points)
      .field("offsets", &Forward::offsets)
      .field("sigmas", &Forward::sigmas)
      .field("sigma", &Forward::sigma)
      .field("truncate", &Forward::truncate)
      .field("batch", &Forward::batch)
      .field("num_points", &Forward::num_points)
      .field("height", &Forward::height)
      .field("width", &Forward::width)
      .field("stride", &Forward::stride)
      .field("out", &Forward::out)
      .field("workspace", &Forward::workspace)
      .bind(module);
  module.def("density_workspace", &density::workspace);
}

}  // namespace dkpnet
