#include "cpu/variational.h"

#include "bindings.h"

namespace dkpnet {
namespace {

using variational::Backward;
using variational::Forward;

template <typename T>
bool has_nan(const void* data, int64_t count) {
  const T* values = static_cast<const T*>(data);
  int found = 0;
  for (int64_t i = 0; i < count; ++i) found |= widen(values[i]) != widen(values[i]);
  return found != 0;
}

// On the CPU the values can be read: an error instead of NaN in the terms.
void forward_on_cpu(const Forward& args, int threads) {
  with_dtype(args.dtype, [&](auto type) {
    using T = decltype(type);
    const char* name = has_nan<T>(args.mu, args.batch * args.dim)                      ? "mu"
                       : has_nan<T>(args.logvar, args.batch * args.dim)                ? "logvar"
                       : has_nan<T>(args.centers, args.domains * args.subs * args.dim) ? "centers"
                       : has_nan<T>(args.prior_logvar, args.domains * args.dim)        ? "prior_logvar"
                                                                                       : nullptr;
    if (name) throw py::value_error(std::string("variational: ") + name + " contains NaN");
  });
  cpu::variational().forward(args, threads);
}

// An index outside the range, which the forward pass never writes, would read outside the centres.
void backward_on_cpu(const Backward& args, int threads) {
  for (int64_t i = 0; i < args.batch * args.domains; ++i)
    if (args.selected[i] < 0 || args.selected[i] >= args.subs)
      throw py::value_error("variational: selected " + std::to_string(args.selected[i]) + " is outside [0, " +
                            std::to_string(args.subs) + ")");
  cpu::variational().backward(args, threads);
}

template <typename Args>
Direction<Args>& problem(Direction<Args>&& direction) {
  return direction.field("dtype", &Args::dtype)
      .field("batch", &Args::batch)
      .field("dim", &Args::dim)
      .field("domains", &Args::domains)
      .field("subs", &Args::subs)
      .field("samples", &Args::samples)
      .field("batch_offset", &Args::batch_offset)
      .field("mu", &Args::mu)
      .field("logvar", &Args::logvar)
      .field("centers", &Args::centers)
      .field("prior_logvar", &Args::prior_logvar)
      .field("labels", &Args::labels)
      .field("seed", &Args::seed)
      .field("eps", &Args::eps);
}

}  // namespace

void bind_variational(py::module_& module) {
  problem(Direction<Forward>("variational_forward", forward_on_cpu, DKPNET_CUDA_ONLY(cuda::variational_forward)))
      .field("dropout", &Forward::dropout)
      .field("z", &Forward::z)
      .field("kl", &Forward::kl)
      .field("lse", &Forward::lse)
      .field("logdet2", &Forward::logdet2)
      .field("selected", &Forward::selected)
      .field("probabilities", &Forward::probabilities)
      .bind(module);
  problem(Direction<Backward>("variational_backward", backward_on_cpu, DKPNET_CUDA_ONLY(cuda::variational_backward)))
      .field("dz", &Backward::dz)
      .field("dkl", &Backward::dkl)
      .field("dlse", &Backward::dlse)
      .field("dlogdet2", &Backward::dlogdet2)
      .field("selected", &Backward::selected)
      .field("probabilities", &Backward::probabilities)
      .field("workspace", &Backward::workspace)
      .field("dmu", &Backward::dmu)
      .field("dlogvar", &Backward::dlogvar)
      .field("dcenters", &Backward::dcenters)
      .field("dprior_logvar", &Backward::dprior_logvar)
      .bind(module);
  // The noise alone, for the tests: element by element, as the GPU draws it.
  module.def("philox_words", [](int64_t seed, int64_t element, int stream) {
    const PhiloxBlock block =
        philox(static_cast<uint64_t>(seed), static_cast<uint64_t>(element) >> 2, uint32_t(stream));
    return block.word[element & 3];
  });
  module.def("philox_normal", [](int64_t seed, int64_t element) {
    return normal(static_cast<uint64_t>(seed), static_cast<uint64_t>(element));
  });
}

}  // namespace dkpnet
