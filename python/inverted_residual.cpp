#include "cpu/inverted_residual.h"

#include "bindings.h"

namespace dkpnet {
namespace {

using namespace inverted_residual;

// Writes the floats of scratch memory per thread to `size`.
struct Sized : Forward {
  int64_t* size;
};
void scratch_size(const Sized& args, int) { *args.size = cpu::inverted_residual_kernels().scratch_size(args); }

template <typename Args>
typename Direction<Args>::Setter part(Window Forward::* window, int Window::* member) {
  return [window, member](Args& args, py::handle value) { assign(args.*window.*member, value); };
}

template <typename Args>
Direction<Args>& sizes(Direction<Args>&& direction) {
  return direction.field("dtype", &Forward::dtype)
      .field("pairs", &Forward::pairs)
      .field("planar", &Forward::planar)
      .field("residual", &Forward::residual)
      .field("batch", &Forward::batch)
      .field("height", &Forward::height)
      .field("width", &Forward::width)
      .field("in_channels", &Forward::in_channels)
      .field("mid_height", &Forward::mid_height)
      .field("mid_width", &Forward::mid_width)
      .field("channels", &Forward::channels)
      .field("out_height", &Forward::out_height)
      .field("out_width", &Forward::out_width)
      .field("out_channels", &Forward::out_channels)
      .field("expand_kernel", part<Args>(&Forward::expand, &Window::kernel))
      .field("expand_stride", part<Args>(&Forward::expand, &Window::stride))
      .field("expand_top", part<Args>(&Forward::expand, &Window::top))
      .field("expand_left", part<Args>(&Forward::expand, &Window::left))
      .field("kernel", part<Args>(&Forward::depthwise, &Window::kernel))
      .field("stride", part<Args>(&Forward::depthwise, &Window::stride))
      .field("top", part<Args>(&Forward::depthwise, &Window::top))
      .field("left", part<Args>(&Forward::depthwise, &Window::left))
      .field("activation", &Forward::activation);
}

}  // namespace

void bind_inverted_residual(py::module_& module) {
  sizes(Direction<Sized>("inverted_residual_scratch", scratch_size, nullptr)).field("size", &Sized::size).bind(module);
  sizes(Direction<Forward>("inverted_residual_forward", cpu::inverted_residual_kernels().forward, nullptr))
      .field("input", &Forward::in)
      .field("table", &Forward::table)
      .field("expand_weight", &Forward::expand_weight)
      .field("expand_bias", &Forward::expand_bias)
      .field("taps", &Forward::taps)
      .field("taps_bias", &Forward::taps_bias)
      .field("project_weight", &Forward::project_weight)
      .field("project_bias", &Forward::project_bias)
      .field("out", &Forward::out)
      .field("scratch", &Forward::scratch)
      .bind(module);
  module.attr("INVERTED_RESIDUAL_UNITS") = py::make_tuple(kUnit, kOutUnit);
  module.attr("BF16_DOT_PRODUCTS") = cpu::has_bf16_dot_products();
}

}  // namespace dkpnet
