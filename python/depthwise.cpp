#include "bindings.h"
#include "cpu/depthwise.h"

namespace dkpnet {

using namespace depthwise;

void bind_depthwise(py::module_& module) {
  py::class_<Shape>(module, "DepthwiseShape", "The sizes of a depthwise convolution; see csrc/math/depthwise.h.")
      .def(py::init([](int dtype, int64_t batch, int channels, int height, int width, int out_height, int out_width,
                       int kernel, int stride, int top, int left, int activation) {
             return Shape{DType(dtype), batch, channels, height, width, out_height, out_width, kernel, stride, top,
                          left, Activation(activation)};
           }),
           py::kw_only(), py::arg("dtype"), py::arg("batch"), py::arg("channels"), py::arg("height"), py::arg("width"),
           py::arg("out_height"), py::arg("out_width"), py::arg("kernel"), py::arg("stride"), py::arg("top"),
           py::arg("left"), py::arg("activation"))
      .def("scratch_size", [](const Shape& shape) { return cpu::depthwise_kernels().scratch_size(shape); });
  py::class_<Forward>(module, "DepthwiseForward")
      .def(py::init([](const Shape& shape, Pointer in, Pointer weight, Pointer bias, Pointer out, Pointer scratch) {
             return Forward{shape, as<void>(in), as<float>(weight), as<float>(bias), as<void>(out), as<float>(scratch)};
           }),
           py::kw_only(), py::arg("shape"), py::arg("input"), py::arg("weight"), py::arg("bias"), py::arg("out"),
           py::arg("scratch"));
  py::class_<Backward>(module, "DepthwiseBackward")
      .def(py::init([](const Shape& shape, Pointer in, Pointer out, Pointer grad_out, Pointer weight, Pointer grad_in,
                       Pointer partials, Pointer scratch) {
             return Backward{shape, as<void>(in), as<void>(out), as<void>(grad_out), as<float>(weight),
                             as<void>(grad_in), as<float>(partials), as<float>(scratch)};
           }),
           py::kw_only(), py::arg("shape"), py::arg("input"), py::arg("out"), py::arg("grad_out"), py::arg("weight"),
           py::arg("grad_in"), py::arg("partials"), py::arg("scratch"));
  module.def("depthwise_forward_cpu", [](const Forward& arguments, int threads) {
    py::gil_scoped_release nogil;
    cpu::depthwise_kernels().forward(arguments, threads);
  });
  module.def("depthwise_backward_cpu", [](const Backward& arguments, int threads) {
    py::gil_scoped_release nogil;
    cpu::depthwise_kernels().backward(arguments, threads);
  });
}

}  // namespace dkpnet
