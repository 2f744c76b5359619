#include "cpu/head.h"

#include <tuple>

#include "bindings.h"

namespace dkpnet {

using namespace head;

// [(address, height, width), ...]
static void set_products(Problem& problem, py::handle value) {
  const auto products = py::cast<py::sequence>(value);
  if (products.size() > size_t(kMaxProducts)) throw py::value_error("head: too many products");
  problem.count = int(products.size());
  for (int j = 0; j < problem.count; ++j) {
    const auto [data, height, width] = products[j].cast<std::tuple<uintptr_t, int, int>>();
    problem.products[j] = {reinterpret_cast<const void*>(data), height, width};
  }
}

template <typename Args>
static Direction<Args>& problem(Direction<Args>&& direction) {
  return direction.field("dtype", &Args::dtype)
      .field("batch", &Args::batch)
      .field("height", &Args::height)
      .field("width", &Args::width)
      .field("channels", &Args::channels)
      .field("hidden1", &Args::hidden1)
      .field("hidden2", &Args::hidden2)
      .field("fine", &Args::fine)
      .field("fine_batch", &Args::fine_batch)
      .field("fine_channel", &Args::fine_channel)
      .field("fine_pixel", &Args::fine_pixel)
      .field("fine_weight", &Args::fine_weight)
      .field("fine_weight_batch", &Args::fine_weight_batch)
      .field("products", set_products)
      .field("bias", &Args::bias)
      .field("weight2", &Args::weight2)
      .field("bias2", &Args::bias2)
      .field("weight3", &Args::weight3)
      .field("bias3", &Args::bias3);
}

void bind_head(py::module_& module) {
  problem(Direction<Forward>("head_forward", cpu::head().forward, DKPNET_CUDA_ONLY(cuda::head_forward)))
      .field("density", &Forward::density)
      .bind(module);
  problem(Direction<Backward>("head_backward", cpu::head().backward, DKPNET_CUDA_ONLY(cuda::head_backward)))
      .field("grad_density", &Backward::grad_density)
      .field("grad_hidden", &Backward::grad_hidden)
      .field("partials", &Backward::partials)
      .bind(module);
  Direction<Downsample>("head_downsample", cpu::head().downsample, DKPNET_CUDA_ONLY(cuda::head_downsample))
      .field("dtype", &Downsample::dtype)
      .field("batch", &Downsample::batch)
      .field("channels", &Downsample::channels)
      .field("height", &Downsample::height)
      .field("width", &Downsample::width)
      .field("rows", &Downsample::rows)
      .field("columns", &Downsample::columns)
      .field("grad", &Downsample::grad)
      .field("out", &Downsample::out)
      .bind(module);
  module.attr("HEAD_PART") = kPart;
}

}  // namespace dkpnet
