#include "cpu/transport.h"

#include "bindings.h"

namespace dkpnet {
namespace {

using transport::Forward;

int64_t workspace(int64_t batch, int64_t num_points, int height, int width, double stride, double scale_x,
                  double scale_y, double regularisation) {
  Forward args{};
  args.batch = batch, args.num_points = num_points, args.height = height, args.width = width, args.stride = stride;
  args.scale_x = scale_x, args.scale_y = scale_y, args.regularisation = regularisation;
  return transport::shape(args).size;
}

}  // namespace

void bind_transport(py::module_& module) {
  Direction<Forward>("transport_forward", cpu::transport_kernels().forward, DKPNET_CUDA_ONLY(cuda::transport_forward))
      .field("density", &Forward::density)
      .field("points", &Forward::points)
      .field("offsets", &Forward::offsets)
      .field("batch", &Forward::batch)
      .field("num_points", &Forward::num_points)
      .field("height", &Forward::height)
      .field("width", &Forward::width)
      .field("stride", &Forward::stride)
      .field("scale_x", &Forward::scale_x)
      .field("scale_y", &Forward::scale_y)
      .field("regularisation", &Forward::regularisation)
      .field("iterations", &Forward::iterations)
      .field("objective", &Forward::objective)
      .field("potential", &Forward::potential)
      .field("workspace", &Forward::workspace)
      .bind(module);
  module.def("transport_workspace", workspace);
}

}  // namespace dkpnet
