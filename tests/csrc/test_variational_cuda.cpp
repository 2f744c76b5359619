// The CUDA kernels of variational, emulated, against the CPU loops (which test_variational.cpp checks).
#include <vector>

#include "check.h"
#include "cpu/variational.h"
#include "cuda/variational.cu"

using namespace dkpnet;

namespace {

template <typename T>
std::vector<T> values(int64_t count, int64_t salt) {
  std::vector<T> out(count);
  for (int64_t i = 0; i < count; ++i)
    out[i] = narrow<T>(wide_t<T>((i * 7919 + salt * 104729) % 2003) / wide_t<T>(1001.5) - 1);
  return out;
}

template <typename T>
struct Results {
  std::vector<T> z, dmu, dlogvar, dcenters, dprior;
  std::vector<float> kl, lse, logdet2, probabilities, workspace;
  std::vector<int64_t> selected;
  explicit Results(const variational::Sizes& s)
      : z(s.samples * s.batch * s.dim),
        dmu(s.batch * s.dim),
        dlogvar(s.batch * s.dim),
        dcenters(s.domains * s.subs * s.dim),
        dprior(s.domains * s.dim),
        kl(s.batch),
        lse(s.batch),
        logdet2(s.batch),
        probabilities(s.samples * s.batch * s.domains),
        workspace(s.samples * s.batch * s.dim),
        selected(s.batch * s.domains) {}
  variational::Forward forward(const variational::Problem& problem, double dropout) {
    return {problem, dropout, z.data(), kl.data(), lse.data(), logdet2.data(), selected.data(), probabilities.data()};
  }
};

template <typename T>
void close(const char* name, const std::vector<T>& got, const std::vector<T>& want, double unit) {
  for (size_t i = 0; i < got.size(); ++i) {
    const double a = widen(got[i]), b = widen(want[i]);
    if ((a != a) != (b != b) || fabs(a - b) > unit * (1 + fabs(b))) printf("%s[%zu]: ", name, i);
    CHECK((a != a && b != b) || fabs(a - b) <= unit * (1 + fabs(b)));
  }
}

template <typename T>
void test(DType dtype, variational::Sizes s, bool explicit_noise, double dropout, int64_t wrong_label, double unit) {
  const auto mu = values<T>(s.batch * s.dim, 1), logvar = values<T>(s.batch * s.dim, 2);
  const auto centers = values<T>(s.domains * s.subs * s.dim, 3), prior = values<T>(s.domains * s.dim, 4);
  const auto eps = values<T>(s.samples * s.batch * s.dim, 5), dz = values<T>(s.samples * s.batch * s.dim, 6);
  const auto dkl = values<float>(s.batch, 7), dlse = values<float>(s.batch, 8), dlogdet2 = values<float>(s.batch, 9);
  std::vector<int64_t> labels;
  for (int64_t b = 0; b < s.batch; ++b) labels.push_back(b % s.domains);
  if (s.batch > 1 && wrong_label) labels[1] = wrong_label;
  const int64_t seed = -5;
  const variational::Problem problem{s,
                                     dtype,
                                     mu.data(),
                                     logvar.data(),
                                     centers.data(),
                                     prior.data(),
                                     labels.data(),
                                     &seed,
                                     explicit_noise ? eps.data() : nullptr};
  Results<T> got(s), want(s);
  auto backward = [&](Results<T>& r) {
    return variational::Backward{problem,
                                 dz.data(),
                                 dkl.data(),
                                 dlse.data(),
                                 dlogdet2.data(),
                                 r.selected.data(),
                                 r.probabilities.data(),
                                 r.workspace.data(),
                                 r.dmu.data(),
                                 r.dlogvar.data(),
                                 r.dcenters.data(),
                                 r.dprior.data()};
  };
  cpu::variational().forward(want.forward(problem, dropout), 1);
  cpu::variational().backward(backward(want), 1);
  emulation::launch(unsigned(s.batch), cuda::kThreads, cuda::forward_kernel<T>, got.forward(problem, dropout),
                    uint32_t(dropout * 4294967296.0));
  emulation::launch(unsigned(s.batch), cuda::kThreads, cuda::backward_images_kernel<T>, backward(got));
  const int64_t tiles = (s.dim + cuda::kLanes - 1) / cuda::kLanes;
  emulation::launch(unsigned(s.domains * s.subs * tiles), cuda::kLanes * cuda::kRows, cuda::backward_centers_kernel<T>,
                    backward(got));

  CHECK(got.selected == want.selected);
  close("z", got.z, want.z, unit);
  close("kl", got.kl, want.kl, 1e-5);
  close("lse", got.lse, want.lse, 1e-5);
  CHECK(got.logdet2 == want.logdet2 || wrong_label);  // summed in double by both: the same bits
  close("probabilities", got.probabilities, want.probabilities, 1e-5);
  close("dmu", got.dmu, want.dmu, unit);
  close("dlogvar", got.dlogvar, want.dlogvar, unit);
  close("dcenters", got.dcenters, want.dcenters, unit);
  close("dprior_logvar", got.dprior, want.dprior, unit);
}

}  // namespace

int main() {
  const variational::Sizes all_sizes[] = {{1, 1, 1, 1, 1, 0},
                                          {3, 7, 5, 3, 2, 11},
                                          {9, 64, 2, 2, 1, 0},
                                          {2, 130, 6, 8, 3, 5},
                                          {20, 33, 17, 1, 1, 1000000007},
                                          {0, 9, 2, 1, 1, 0}};
  for (const variational::Sizes& sizes : all_sizes) {
    for (bool explicit_noise : {true, false}) test<float>(DType::f32, sizes, explicit_noise, 0.3, 0, 1e-5);
    test<bf16>(DType::bf16, sizes, false, 0.0, 0, 0x1p-7);
    test<f16>(DType::f16, sizes, true, 0.0, 0, 0x1p-10);
    for (int64_t wrong : {int64_t(-1), int64_t(1) << 40}) test<float>(DType::f32, sizes, true, 0.0, wrong, 1e-5);
  }
  emulation::list_barriers();
  return check_result();
}
