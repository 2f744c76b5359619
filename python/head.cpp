#include <pybind11/stl.h>

#include <vector>

#include "bindings.h"
#include "cpu/head.h"
#ifdef DKPNET_CUDA
#include "cuda/head.h"
#endif

namespace dkpnet {

using head::Problem;

void bind_head(py::module_& module) {
  py::class_<Problem>(module, "HeadProblem", "The arguments of the attended head's tail; see csrc/math/head.h.")
      .def(py::init([](int dtype, int64_t batch, int height, int width, int channels, int hidden1, int hidden2,
                       Pointer fine, int64_t fine_batch, int64_t fine_channel, int64_t fine_pixel, Pointer fine_weight,
                       int64_t fine_weight_batch, const std::vector<std::tuple<Pointer, int, int>>& products,
                       const std::vector<Pointer>& parameters) {
             if (products.size() > head::kMaxProducts || parameters.size() != 5)
               throw std::invalid_argument("HeadProblem: too many products, or not five parameters");
             Problem problem{DType(dtype), batch, height, width, channels, hidden1, hidden2, as<void>(fine), fine_batch,
                             fine_channel, fine_pixel, as<void>(fine_weight), fine_weight_batch, int(products.size()),
                             {}, as<float>(parameters[0]), as<float>(parameters[1]), as<float>(parameters[2]),
                             as<float>(parameters[3]), as<float>(parameters[4])};
             for (size_t j = 0; j < products.size(); ++j)
               problem.products[j] = {as<void>(std::get<0>(products[j])), std::get<1>(products[j]),
                                      std::get<2>(products[j])};
             return problem;
           }),
           py::kw_only(), py::arg("dtype"), py::arg("batch"), py::arg("height"), py::arg("width"), py::arg("channels"),
           py::arg("hidden1"), py::arg("hidden2"), py::arg("fine"), py::arg("fine_batch"), py::arg("fine_channel"),
           py::arg("fine_pixel"), py::arg("fine_weight"), py::arg("fine_weight_batch"), py::arg("products"),
           py::arg("parameters"));
  module.attr("HEAD_PART") = head::kPart;
  module.attr("HEAD_MAX_PRODUCTS") = head::kMaxProducts;

  module.def("head_forward_cpu", [](const Problem& problem, Pointer density, int threads) {
    py::gil_scoped_release nogil;
    cpu::head_kernels().forward(problem, as<void>(density), threads);
  });
  module.def("head_backward_cpu", [](const Problem& problem, Pointer grad_density, Pointer grad_hidden,
                                     Pointer partials, int threads) {
    py::gil_scoped_release nogil;
    cpu::head_kernels().backward(problem, as<void>(grad_density), as<void>(grad_hidden), as<float>(partials), threads);
  });
  module.def("head_downsample_cpu", [](int dtype, Pointer grad, Pointer out, int64_t batch, int channels, int height,
                                       int width, int rows, int columns, int threads) {
    py::gil_scoped_release nogil;
    cpu::head_kernels().downsample(DType(dtype), as<void>(grad), as<void>(out), batch, channels, height, width, rows,
                                   columns, threads);
  });
#ifdef DKPNET_CUDA
  module.def("head_forward_cuda", [](const Problem& problem, Pointer density, int device, Pointer stream) {
    on_device(device, "attended_head", [&] { return cuda::head_forward(problem, as<void>(density), as<void>(stream)); });
  });
  module.def("head_backward_cuda", [](const Problem& problem, Pointer grad_density, Pointer grad_hidden,
                                      Pointer partials, int device, Pointer stream) {
    on_device(device, "attended_head", [&] {
      return cuda::head_backward(problem, as<void>(grad_density), as<void>(grad_hidden), as<float>(partials),
                                 as<void>(stream));
    });
  });
  module.def("head_downsample_cuda", [](int dtype, Pointer grad, Pointer out, int64_t batch, int channels, int height,
                                        int width, int rows, int columns, int device, Pointer stream) {
    on_device(device, "attended_head", [&] {
      return cuda::head_downsample(DType(dtype), as<void>(grad), as<void>(out), batch, channels, height, width, rows,
                                   columns, as<void>(stream));
    });
  });
#endif
}

}  // namespace dkpnet
