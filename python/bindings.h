// This folder is C++: pybind11 bindings, one file per stem, all in the same form. A direction of a stem is
// its struct of arguments in csrc/math/<stem>.h and the functions that run it on CPU and GPU:
//
//   Direction<reweight::Forward>("reweight_forward", cpu::reweight().forward, DKPNET_CUDA_ONLY(cuda::reweight_forward))
//       .field("batch", &reweight::Forward::batch)...
//       .bind(module);
//
// Python calls it with keyword arguments only: every member of the struct (for a pointer the address of a dense tensor,
// 0 for null), then `threads` to run it on the CPU, or `stream` to run it on the current GPU. No torch header is
// needed. dkpnet_ext/ops/<stem>.py has checked shapes, dtypes, devices and strides before it calls.
#pragma once

#include <pybind11/pybind11.h>

#include <functional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "cuda/common.h"
#include "math/common.h"

#ifdef DKPNET_CUDA
#define DKPNET_CUDA_ONLY(function) function
#else
#define DKPNET_CUDA_ONLY(function) nullptr
#endif

namespace py = pybind11;

namespace dkpnet {

template <typename Member>
void assign(Member& member, py::handle value) {
  if constexpr (std::is_pointer_v<Member>) {
    member = reinterpret_cast<Member>(value.cast<uintptr_t>());
  } else if constexpr (std::is_same_v<Member, DType>) {
    const int number = value.cast<int>();
    if (number < 0 || number > int(DType::f16))
      throw py::value_error("no dtype has the number " + std::to_string(number));
    member = DType(number);
  } else if constexpr (std::is_enum_v<Member>) {
    member = Member(value.cast<int>());
  } else {
    member = value.cast<Member>();
  }
}

template <typename Args>
class Direction {
 public:
  using Setter = std::function<void(Args&, py::handle)>;
  using Cpu = void (*)(const Args&, int threads);
  using Cuda = int (*)(const Args&, void* stream);

  Direction(const char* name, Cpu cpu, Cuda cuda) : name_(name), cpu_(cpu), cuda_(cuda) {}

  Direction& field(const char* name, Setter set) {
    fields_.emplace_back(py::reinterpret_steal<py::str>(PyUnicode_InternFromString(name)), std::move(set));
    return *this;
  }
  template <typename Member, typename Base>
  Direction& field(const char* name, Member Base::* member) {
    return field(name, Setter([member](Args& args, py::handle value) { assign(args.*member, value); }));
  }

  void bind(py::module_& module) const {
    module.def(name_, [self = *this](const py::kwargs& given) { self.run(given); });
  }

 private:
  py::handle take(const py::kwargs& given, const py::handle& field) const {
    PyObject* value = PyDict_GetItemWithError(given.ptr(), field.ptr());
    if (!value) throw py::type_error(std::string(name_) + ": missing argument '" + std::string(py::str(field)) + "'");
    return value;
  }

  void run(const py::kwargs& given) const {
    Args args{};
    for (const auto& [field, set] : fields_) set(args, take(given, field));
    const bool on_cuda = given.contains("stream");
    if (given.size() != fields_.size() + 1) throw py::type_error(std::string(name_) + ": unknown argument");
    if (on_cuda) {
      void* stream = reinterpret_cast<void*>(take(given, py::str("stream")).template cast<uintptr_t>());
      run_on_cuda(args, stream);
    } else {
      const int threads = take(given, py::str("threads")).template cast<int>();
      py::gil_scoped_release unlocked;
      cpu_(args, threads);
    }
  }

  void run_on_cuda([[maybe_unused]] const Args& args, [[maybe_unused]] void* stream) const {
#ifdef DKPNET_CUDA
    const int error = cuda_(args, stream);
    if (error) throw std::runtime_error(std::string("dkpnet_ext: ") + name_ + " on CUDA: " + cuda::error_string(error));
#else
    throw std::runtime_error(std::string("dkpnet_ext: ") + name_ + ": the module was built without CUDA");
#endif
  }

  const char* name_;
  Cpu cpu_;
  Cuda cuda_;
  std::vector<std::pair<py::str, Setter>> fields_;
};

}  // namespace dkpnet
