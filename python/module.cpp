// The module `_dkpnet_ext`: build information, and the functions of every stem.
#include "bindings.h"
#include "build_info.h"
#include "cpu/isa.h"

namespace dkpnet {
#define STEM(name) void bind_##name(py::module_& module);
#include "stems.inc"
#undef STEM
}  // namespace dkpnet

PYBIND11_MODULE(_dkpnet_ext, module) {
  module.doc() = "Compiled kernels of dkpnet_ext; use them through dkpnet_ext.ops.";
  module.attr("__version__") = DKPNET_VERSION;
  const char* isa[] = {"baseline", "avx2", "avx512"};
  py::dict build;
  build["fingerprint"] = DKPNET_FINGERPRINT;
  build["compiler"] = DKPNET_COMPILER;
  build["flags"] = DKPNET_FLAGS;
  build["cpu_instruction_sets"] = DKPNET_ISAS;
  build["cpu_in_use"] = isa[static_cast<int>(dkpnet::cpu::detected_isa())];
#ifdef DKPNET_CUDA
  build["cuda"] = true;
#else
  build["cuda"] = false;
#endif
  build["cuda_toolkit"] = DKPNET_CUDA_TOOLKIT;
  build["cuda_archs"] = DKPNET_CUDA_ARCH_LIST;
  build["cuda_missing"] = DKPNET_CUDA_MISSING;
  module.attr("build_info") = build;

#ifdef DKPNET_CUDA
  module.def(
      "cuda_probe",
      [] {
        const int error = dkpnet::cuda::probe();
        return error ? dkpnet::cuda::error_string(error) : "";
      },
      "Why the CUDA kernels do not run on the current device; empty if they do.");
#endif

#define STEM(name) dkpnet::bind_##name(module);
#include "stems.inc"
#undef STEM
}
