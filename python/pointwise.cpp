#include "bindings.h"
#include "cpu/pointwise.h"

namespace dkpnet {

using pointwise::Mask;

void bind_pointwise(py::module_& module) {
  py::class_<Mask>(module, "PointwiseMask", "See csrc/math/pointwise.h.")
      .def(py::init([](int dtype, int64_t count, int64_t width, int activation, Pointer grad_out, Pointer out,
                       Pointer grad, Pointer partials) {
             return Mask{DType(dtype), count, width, Activation(activation), as<void>(grad_out), as<void>(out),
                         as<void>(grad), as<float>(partials)};
           }),
           py::kw_only(), py::arg("dtype"), py::arg("count"), py::arg("width"), py::arg("activation"),
           py::arg("grad_out"), py::arg("out"), py::arg("grad"), py::arg("partials"));
  module.attr("POINTWISE_UNIT") = pointwise::kUnit;
  module.attr("POINTWISE_ROWS") = pointwise::kRows;
  module.def("pointwise_mask_cpu", [](const Mask& arguments, int threads) {
    py::gil_scoped_release nogil;
    cpu::pointwise_kernels().mask(arguments, threads);
  });
}

}  // namespace dkpnet
