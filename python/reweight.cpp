#include "bindings.h"
#include "cpu/reweight.h"
#ifdef DKPNET_CUDA
#include "cuda/reweight.h"
#endif

namespace dkpnet {

void bind_reweight(py::module_& module) {
  module.def("reweight_forward_cpu", [](int dtype, Pointer x, Pointer attention, Pointer out, int64_t batch,
                                        int64_t channels, int64_t pixels, bool channels_last, int threads) {
    py::gil_scoped_release nogil;
    cpu::reweight().forward(DType(dtype), as<void>(x), as<void>(attention), as<void>(out), batch, channels, pixels,
                            channels_last, threads);
  });
  module.def("reweight_backward_cpu",
             [](int dtype, Pointer grad, Pointer x, Pointer attention, Pointer dx, Pointer dattention, int64_t batch,
                int64_t channels, int64_t pixels, bool channels_last, int threads) {
               py::gil_scoped_release nogil;
               cpu::reweight().backward(DType(dtype), as<void>(grad), as<void>(x), as<void>(attention), as<void>(dx),
                                        as<void>(dattention), batch, channels, pixels, channels_last, threads);
             });
#ifdef DKPNET_CUDA
  module.def("reweight_forward_cuda", [](int dtype, Pointer x, Pointer attention, Pointer out, int64_t batch,
                                         int64_t channels, int64_t pixels, bool channels_last, int device,
                                         Pointer stream) {
    on_device(device, "reweight", [&] {
      return cuda::reweight_forward(DType(dtype), as<void>(x), as<void>(attention), as<void>(out), batch, channels,
                                    pixels, channels_last, as<void>(stream));
    });
  });
  module.def("reweight_splits", &cuda::reweight_splits);
  module.def("reweight_backward_cuda",
             [](int dtype, Pointer grad, Pointer x, Pointer attention, Pointer dx, Pointer dattention,
                Pointer workspace, int64_t batch, int64_t channels, int64_t pixels, bool channels_last, int device,
                Pointer stream) {
               on_device(device, "reweight", [&] {
                 return cuda::reweight_backward(DType(dtype), as<void>(grad), as<void>(x), as<void>(attention),
                                                as<void>(dx), as<void>(dattention), as<void>(workspace), batch,
                                                channels, pixels, channels_last, as<void>(stream));
               });
             });
#endif
}

}  // namespace dkpnet
