#include "cpu/reweight.h"

#include "bindings.h"

namespace dkpnet {

using namespace reweight;

template <typename Args>
static Direction<Args>& problem(Direction<Args>&& direction) {
  return direction.field("dtype", &Args::dtype)
      .field("batch", &Args::batch)
      .field("channels", &Args::channels)
      .field("pixels", &Args::pixels)
      .field("channels_last", &Args::channels_last)
      .field("x", &Args::x)
      .field("attention", &Args::attention);
}

void bind_reweight(py::module_& module) {
  problem(Direction<Forward>("reweight_forward", cpu::reweight().forward, DKPNET_CUDA_ONLY(cuda::reweight_forward)))
      .field("out", &Forward::out)
      .bind(module);
  problem(Direction<Backward>("reweight_backward", cpu::reweight().backward, DKPNET_CUDA_ONLY(cuda::reweight_backward)))
      .field("grad", &Backward::grad)
      .field("dx", &Backward::dx)
      .field("dattention", &Backward::dattention)
      .field("workspace", &Backward::workspace)
      .bind(module);
  module.def("reweight_splits", &splits);
}

}  // namespace dkpnet
