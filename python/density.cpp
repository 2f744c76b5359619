#include "bindings.h"
#include "cpu/density.h"
#ifdef DKPNET_CUDA
#include "cuda/density.h"
#endif

#include <memory>

namespace dkpnet {
namespace {

DensityArgs arguments(Pointer points, Pointer offsets, Pointer sigmas, float sigma, float truncate, int64_t batch,
                      int64_t num_points, int height, int width, int stride, Pointer out) {
  return {as<float>(points), as<int64_t>(offsets), as<float>(sigmas), sigma,  truncate, batch,
          num_points,        height,               width,             stride, as<float>(out)};
}

}  // namespace

void bind_density(py::module_& module) {
  module.def(
      "density_cpu",
      [](Pointer points, Pointer offsets, Pointer sigmas, float sigma, float truncate, int64_t batch,
         int64_t num_points, int height, int width, int stride, Pointer out, int threads) {
        const DensityArgs args = arguments(points, offsets, sigmas, sigma, truncate, batch, num_points, height, width,
                                           stride, out);
        py::gil_scoped_release unlocked;
        const int64_t floats = batch * cpu::density_workspace(height, width, stride);
        const std::unique_ptr<float[]> workspace(new float[floats]);
        cpu::density().forward(args, workspace.get(), threads);
      },
      "Density targets of a batch; see csrc/math/density.h.");
#ifdef DKPNET_CUDA
  module.def(
      "density_cuda",
      [](Pointer points, Pointer offsets, Pointer sigmas, float sigma, float truncate, int64_t batch,
         int64_t num_points, int height, int width, int stride, Pointer out, int device, Pointer stream) {
        const DensityArgs args = arguments(points, offsets, sigmas, sigma, truncate, batch, num_points, height, width,
                                           stride, out);
        on_device(device, "density", [&] { return cuda::density(args, as<void>(stream)); });
      },
      "Density targets of a batch; see csrc/math/density.h.");
#endif
}

}  // namespace dkpnet
