#include "cpu/depthwise.h"

#include "bindings.h"

namespace dkpnet {
namespace {

using namespace depthwise;

template <typename Args, typename Member>
typename Direction<Args>::Setter of_shape(Member Shape::* member) {
  return [member](Args& args, py::handle value) { assign(args.shape.*member, value); };
}

template <typename Args>
Direction<Args>& shape(Direction<Args>&& direction) {
  return direction.field("dtype", of_shape<Args>(&Shape::dtype))
      .field("batch", of_shape<Args>(&Shape::batch))
      .field("channels", of_shape<Args>(&Shape::channels))
      .field("height", of_shape<Args>(&Shape::height))
      .field("width", of_shape<Args>(&Shape::width))
      .field("out_height", of_shape<Args>(&Shape::out_height))
      .field("out_width", of_shape<Args>(&Shape::out_width))
      .field("kernel", of_shape<Args>(&Shape::kernel))
      .field("stride", of_shape<Args>(&Shape::stride))
      .field("top", of_shape<Args>(&Shape::top))
      .field("left", of_shape<Args>(&Shape::left))
      .field("activation", of_shape<Args>(&Shape::activation));
}

// Writes the floats of scratch memory per thread to `size`.
struct Scratch {
  Shape shape;
  int64_t* size;
};
void scratch_size(const Scratch& args, int) { *args.size = cpu::depthwise_kernels().scratch_size(args.shape); }

}  // namespace

void bind_depthwise(py::module_& module) {
  shape(Direction<Scratch>("depthwise_scratch", scratch_size, nullptr)).field("size", &Scratch::size).bind(module);
  shape(Direction<Forward>("depthwise_forward", cpu::depthwise_kernels().forward, nullptr))
      .field("input", &Forward::in)
      .field("weight", &Forward::weight)
      .field("bias", &Forward::bias)
      .field("out", &Forward::out)
      .field("scratch", &Forward::scratch)
      .bind(module);
  shape(Direction<Backward>("depthwise_backward", cpu::depthwise_kernels().backward, nullptr))
      .field("input", &Backward::in)
      .field("out", &Backward::out)
      .field("grad_out", &Backward::grad_out)
      .field("weight", &Backward::weight)
      .field("grad_in", &Backward::grad_in)
      .field("partials", &Backward::partials)
      .field("scratch", &Backward::scratch)
      .bind(module);
}

}  // namespace dkpnet
