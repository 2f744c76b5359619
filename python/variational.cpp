#include <pybind11/stl.h>

#include <array>

#include "bindings.h"
#include "cpu/variational.h"
#ifdef DKPNET_CUDA
#include "cuda/variational.h"
#endif

namespace dkpnet {
namespace {

// Sizes and addresses come as lists in the order of the structs' members.
using Sizes = std::array<int64_t, 6>;
template <int count>
using Pointers = std::array<Pointer, count>;

VariationalSizes sizes(const Sizes& s) { return {s[0], s[1], s[2], s[3], s[4], s[5]}; }

VariationalInputs inputs(const Pointers<7>& p) {
  return {as<void>(p[0]), as<void>(p[1]), as<void>(p[2]), as<void>(p[3]), as<int64_t>(p[4]), as<int64_t>(p[5]),
          as<void>(p[6])};
}

VariationalOutputs outputs(const Pointers<6>& p) {
  return {as<void>(p[0]), as<void>(p[1]), as<void>(p[2]), as<void>(p[3]), as<int64_t>(p[4]), as<void>(p[5])};
}

VariationalGradients gradients(const Pointers<11>& p) {
  return {as<void>(p[0]), as<void>(p[1]), as<void>(p[2]), as<void>(p[3]), as<int64_t>(p[4]), as<void>(p[5]),
          as<void>(p[6]), as<void>(p[7]), as<void>(p[8]), as<void>(p[9]), as<void>(p[10])};
}

template <typename T>
bool has_nan(const void* data, int64_t count) {
  const T* values = static_cast<const T*>(data);
  int found = 0;
  for (int64_t i = 0; i < count; ++i) found |= widen(values[i]) != widen(values[i]);
  return found != 0;
}

// On the CPU the values can be looked at: an error instead of a NaN in the terms.
void check(DType dtype, const VariationalSizes& s, const VariationalInputs& in) {
  for (int64_t b = 0; b < s.batch; ++b)
    if (in.labels[b] < 0 || in.labels[b] >= s.domains)
      throw py::value_error("variational: label " + std::to_string(in.labels[b]) + " of image " + std::to_string(b) +
                            " is outside [0, " + std::to_string(s.domains) + ")");
  with_dtype(dtype, [&](auto type) {
    using T = decltype(type);
    const char* name = has_nan<T>(in.mu, s.batch * s.dim)                              ? "mu"
                       : has_nan<T>(in.logvar, s.batch * s.dim)                        ? "logvar"
                       : has_nan<T>(in.centers, s.domains * s.subs * s.dim)            ? "centers"
                       : has_nan<T>(in.prior_logvar, s.domains * s.dim)                ? "prior_logvar"
                                                                                       : nullptr;
    if (name) throw py::value_error(std::string("variational: ") + name + " contains NaN");
  });
}

}  // namespace

void bind_variational(py::module_& module) {
  module.def("variational_forward_cpu", [](int dtype, const Sizes& s, const Pointers<7>& in, double dropout,
                                           const Pointers<6>& out, int threads) {
    check(DType(dtype), sizes(s), inputs(in));
    py::gil_scoped_release nogil;
    cpu::variational().forward(DType(dtype), sizes(s), inputs(in), dropout, outputs(out), threads);
  });
  module.def("variational_backward_cpu",
             [](int dtype, const Sizes& s, const Pointers<7>& in, const Pointers<11>& grad, int threads) {
               py::gil_scoped_release nogil;
               cpu::variational().backward(DType(dtype), sizes(s), inputs(in), gradients(grad), threads);
             });
#ifdef DKPNET_CUDA
  module.def("variational_forward_cuda", [](int dtype, const Sizes& s, const Pointers<7>& in, double dropout,
                                            const Pointers<6>& out, int device, Pointer stream) {
    on_device(device, "variational", [&] {
      return cuda::variational_forward(DType(dtype), sizes(s), inputs(in), dropout, outputs(out), as<void>(stream));
    });
  });
  module.def("variational_backward_cuda", [](int dtype, const Sizes& s, const Pointers<7>& in, const Pointers<11>& grad,
                                             int device, Pointer stream) {
    on_device(device, "variational", [&] {
      return cuda::variational_backward(DType(dtype), sizes(s), inputs(in), gradients(grad), as<void>(stream));
    });
  });
#endif
  // The noise itself, for the tests: element by element, as the GPU draws it.
  module.def("philox_words", [](int64_t seed, int64_t element, int stream) {
    const PhiloxBlock block = philox(static_cast<uint64_t>(seed), static_cast<uint64_t>(element) >> 2, uint32_t(stream));
    return block.word[element & 3];
  });
  module.def("philox_normal", [](int64_t seed, int64_t element) {
    return normal(static_cast<uint64_t>(seed), static_cast<uint64_t>(element));
  });
}

}  // namespace dkpnet
