// csrc/math/variational.h and csrc/cpu/variational.cpp, for every instruction set that this machine has: values against
// a naive double version, gradients against central differences of it.
#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <vector>

#include "check.h"
#include "cpu/variational.h"

using namespace dkpnet;

namespace {

std::vector<const cpu::VariationalKernels*> all_kernels() {
  std::vector<const cpu::VariationalKernels*> kernels{&cpu::variational(), &cpu::baseline::variational};
#ifdef DKPNET_X86_LEVELS
  if (cpu::detected_isa() >= cpu::Isa::avx2) kernels.push_back(&cpu::avx2::variational);
#endif
  return kernels;
}

double value_at(int64_t i, int64_t salt) { return double((i * 7919 + salt * 104729) % 2003) / 1001.5 - 1; }

template <typename T>
struct Case {
  using W = wide_t<T>;
  variational::Sizes s;
  std::vector<T> mu, logvar, centers, prior, eps, z, dz, dmu, dlogvar, dcenters, dprior;
  std::vector<W> kl, lse, logdet2, probabilities, dkl, dlse, dlogdet2, workspace;
  std::vector<int64_t> labels, selected;
  int64_t seed = 42;
  bool explicit_noise;

  Case(variational::Sizes sizes, bool noise) : s(sizes), explicit_noise(noise) {
    auto fill = [](auto& values, int64_t count, int64_t salt) {
      using V = typename std::decay_t<decltype(values)>::value_type;
      values.resize(count);
      for (int64_t i = 0; i < count; ++i) values[i] = narrow<V>(wide_t<V>(value_at(i, salt)));
    };
    const int64_t bd = s.batch * s.dim, nbd = s.samples * bd;
    fill(mu, bd, 1), fill(logvar, bd, 2), fill(centers, s.domains * s.subs * s.dim, 3),
        fill(prior, s.domains * s.dim, 4);
    fill(eps, nbd, 5), fill(dz, nbd, 6), fill(dkl, s.batch, 7), fill(dlse, s.batch, 8), fill(dlogdet2, s.batch, 9);
    for (int64_t b = 0; b < s.batch; ++b) labels.push_back(b % s.domains);
    z.resize(nbd), workspace.resize(nbd), probabilities.resize(s.samples * s.batch * s.domains);
    kl.resize(s.batch), lse.resize(s.batch), logdet2.resize(s.batch), selected.resize(s.batch * s.domains);
    dmu.resize(bd), dlogvar.resize(bd), dcenters.resize(centers.size()), dprior.resize(prior.size());
  }

  void run(DType dtype, const cpu::VariationalKernels& kernels, double dropout, int threads) {
    const variational::Problem problem{s,
                                       dtype,
                                       mu.data(),
                                       logvar.data(),
                                       centers.data(),
                                       prior.data(),
                                       labels.data(),
                                       &seed,
                                       explicit_noise ? eps.data() : nullptr};
    kernels.forward(
        {problem, dropout, z.data(), kl.data(), lse.data(), logdet2.data(), selected.data(), probabilities.data()},
        threads);
    kernels.backward(
        {problem, dz.data(), dkl.data(), dlse.data(), dlogdet2.data(), selected.data(), probabilities.data(),
         workspace.data(), dmu.data(), dlogvar.data(), dcenters.data(), dprior.data()},
        threads);
  }
};

// MATH.md literally, in double; `selected` is given. Returns the upstream-weighted sum of all outputs.
struct Naive {
  std::vector<double> mu, logvar, centers, prior, noise;
  std::vector<double> z, kl, lse, logdet2;

  template <typename T>
  explicit Naive(const Case<T>& c) {
    auto wide = [](const std::vector<T>& from) {
      std::vector<double> to;
      for (const T& v : from) to.push_back(widen(v));
      return to;
    };
    mu = wide(c.mu), logvar = wide(c.logvar), centers = wide(c.centers), prior = wide(c.prior);
    for (int64_t n = 0; n < c.s.samples; ++n)
      for (int64_t b = 0; b < c.s.batch; ++b)
        for (int64_t j = 0; j < c.s.dim; ++j) {
          const int64_t element = ((c.s.batch_offset + b) * c.s.samples + n) * c.s.dim + j;
          noise.push_back(c.explicit_noise ? double(widen(c.eps[(n * c.s.batch + b) * c.s.dim + j]))
                                           : double(normal(uint64_t(c.seed), uint64_t(element))));
        }
  }

  template <typename T>
  double loss(const Case<T>& c) {
    const variational::Sizes& s = c.s;
    z.assign(noise.size(), 0), kl.assign(s.batch, 0), lse.assign(s.batch, 0), logdet2.assign(s.batch, 0);
    double total = 0;
    for (int64_t b = 0; b < s.batch; ++b) {
      auto u = [&](int64_t k, int64_t j) { return centers[(k * s.subs + c.selected[b * s.domains + k]) * s.dim + j]; };
      const int64_t l = c.labels[b];
      double logdet = 0;
      for (int64_t j = 0; j < s.dim; ++j) {
        const double m = mu[b * s.dim + j], v = logvar[b * s.dim + j], p = prior[l * s.dim + j], d = u(l, j) - m;
        kl[b] += 0.5 * (p - v - 1 + exp(v - p) + d * d * exp(-p));
        logdet += p;
      }
      logdet2[b] = logdet * logdet;
      for (int64_t n = 0; n < s.samples; ++n) {
        const int64_t row = (n * s.batch + b) * s.dim;
        std::vector<double> logits(s.domains);
        for (int64_t j = 0; j < s.dim; ++j) {
          z[row + j] = mu[b * s.dim + j] + exp(logvar[b * s.dim + j] / 2) * noise[row + j];
          total += z[row + j] * widen(c.dz[row + j]);
          for (int64_t k = 0; k < s.domains; ++k) logits[k] += z[row + j] * u(k, j);
        }
        const double greatest = *std::max_element(logits.begin(), logits.end());
        double sum = 0;
        for (double logit : logits) sum += exp(logit - greatest);
        lse[b] += (log(sum) + greatest - logits[l]) / s.samples;
      }
      total += kl[b] * c.dkl[b] + lse[b] * c.dlse[b] + logdet2[b] * c.dlogdet2[b];
    }
    return total;
  }
};

template <typename T>
void check_against_naive(DType dtype, variational::Sizes sizes, bool explicit_noise, double dropout, double unit) {
  for (const cpu::VariationalKernels* kernels : all_kernels()) {
    for (int threads : {1, 3}) {
      Case<T> c(sizes, explicit_noise);
      c.run(dtype, *kernels, dropout, threads);
      Naive naive(c);
      naive.loss(c);
      for (size_t i = 0; i < c.z.size(); ++i) CHECK_NEAR(widen(c.z[i]), naive.z[i], unit * (1 + fabs(naive.z[i])));
      const double scale = 1e-6 * (1 + double(sizes.dim));  // the terms are wide sums over d
      for (int64_t b = 0; b < sizes.batch; ++b) {
        CHECK_NEAR(c.kl[b], naive.kl[b], scale);
        CHECK_NEAR(c.lse[b], naive.lse[b], scale);
        CHECK_NEAR(c.logdet2[b], naive.logdet2[b], scale * (1 + sqrt(naive.logdet2[b])));
      }
      auto check_gradient = [&](std::vector<double>& parameter, const std::vector<T>& gradient) {
        const int64_t step = 1 + int64_t(parameter.size()) / 23;
        for (int64_t i = 0; i < int64_t(parameter.size()); i += step) {
          const double kept = parameter[i], h = 1e-5;
          parameter[i] = kept + h;
          const double above = naive.loss(c);
          parameter[i] = kept - h;
          const double below = naive.loss(c);
          parameter[i] = kept;
          const double want = (above - below) / (2 * h);
          CHECK_NEAR(widen(gradient[i]), want, (unit + 1e-6) * (1 + fabs(want)) * 8);
        }
      };
      check_gradient(naive.mu, c.dmu);
      check_gradient(naive.logvar, c.dlogvar);
      check_gradient(naive.centers, c.dcenters);
      check_gradient(naive.prior, c.dprior);
    }
  }
}

void test_selection() {
  Case<float> c({5, 9, 3, 4, 1, 2}, false);
  for (double dropout : {0.0, 0.4}) {
    c.run(DType::f32, cpu::variational(), dropout, 1);
    for (int64_t b = 0; b < c.s.batch; ++b)
      for (int64_t k = 0; k < c.s.domains; ++k) {
        std::vector<double> scores;
        for (int64_t i = 0; i < c.s.subs; ++i) {
          double score = 0;
          for (int64_t j = 0; j < c.s.dim; ++j)
            score += double(c.mu[b * c.s.dim + j]) * c.centers[(k * c.s.subs + i) * c.s.dim + j];
          const int64_t element = ((c.s.batch_offset + b) * c.s.domains + k) * c.s.subs + i;
          if (dropout > 0 && !kept(uint64_t(c.seed), uint64_t(element), uint32_t(dropout * 4294967296.0))) score = 0;
          scores.push_back(score);
        }
        CHECK(c.selected[b * c.s.domains + k] == std::max_element(scores.begin(), scores.end()) - scores.begin());
      }
  }
  std::fill(c.centers.begin(), c.centers.end(), 0.5f);  // all equal: the lowest index
  c.run(DType::f32, cpu::variational(), 0.0, 1);
  for (int64_t chosen : c.selected) CHECK(chosen == 0);
}

void test_extremes_and_wrong_labels() {
  for (double size : {-30.0, 30.0}) {
    Case<float> c({3, 40, 2, 2, 1, 0}, true);
    std::fill(c.logvar.begin(), c.logvar.end(), float(size));
    std::fill(c.prior.begin(), c.prior.end(), float(-size));
    c.run(DType::f32, cpu::variational(), 0.0, 1);
    for (const auto* values : {&c.kl, &c.lse, &c.logdet2, &c.z, &c.dmu, &c.dlogvar, &c.dcenters, &c.dprior})
      for (float value : *values) CHECK(std::isfinite(value));
  }
  for (int64_t bad : {int64_t(-1), int64_t(2), std::numeric_limits<int64_t>::max()}) {
    Case<float> c({3, 4, 2, 2, 1, 0}, true);
    c.labels[1] = bad;
    c.run(DType::f32, cpu::variational(), 0.0, 1);  // what the GPU does, where labels cannot be looked at
    CHECK(c.kl[1] != c.kl[1] && c.lse[1] != c.lse[1] && c.logdet2[1] != c.logdet2[1] && c.dmu[4] != c.dmu[4]);
    CHECK(c.kl[0] == c.kl[0] && c.lse[2] == c.lse[2] && c.dmu[0] == c.dmu[0] && c.z[4] == c.z[4]);
  }
}

}  // namespace

// The sizes of experiments/kernels.py, 32 images of 128: only 64 samples are worth a second thread.
void test_threads_start_only_where_they_pay() {
  const int64_t sizes[][3] = {{5, 2, 1},  {16, 2, 1}, {64, 2, 1}, {5, 16, 1},
                              {5, 64, 1}, {5, 2, 4},  {5, 2, 16}, {5, 2, 64}};
  for (const auto& [domains, subs, samples] : sizes) {
    const variational::Sizes s{32, 128, domains, subs, samples, 0};
    CHECK((s.batch / cpu::images_per_thread(s) > 1) == (samples == 64));
    CHECK(domains * subs / cpu::centers_per_thread(s) <= 1);
  }
}

void test_threads_change_no_bit() {
  const variational::Sizes s{140, 600, 3, 2, 16, 0};
  CHECK(s.batch / cpu::images_per_thread(s) > 1 && s.domains * s.subs / cpu::centers_per_thread(s) > 1);
  Case<float> one(s, false), three(s, false);
  one.run(DType::f32, cpu::variational(), 0.2, 1);
  three.run(DType::f32, cpu::variational(), 0.2, 3);
  CHECK(one.z == three.z && one.kl == three.kl && one.lse == three.lse && one.logdet2 == three.logdet2);
  CHECK(one.dmu == three.dmu && one.dlogvar == three.dlogvar);
  CHECK(one.dcenters == three.dcenters && one.dprior == three.dprior);
}

int main() {
  const variational::Sizes all_sizes[] = {
      {0, 7, 2, 2, 1, 0}, {1, 1, 1, 1, 1, 0}, {3, 7, 5, 3, 2, 11}, {9, 64, 2, 2, 1, 0}, {4, 300, 3, 1, 3, 1000000007}};
  for (const variational::Sizes& sizes : all_sizes) {
    for (bool explicit_noise : {true, false}) {
      check_against_naive<double>(DType::f64, sizes, explicit_noise, 0.0, 1e-12);
      check_against_naive<float>(DType::f32, sizes, explicit_noise, 0.3, 1e-6);
    }
    check_against_naive<bf16>(DType::bf16, sizes, true, 0.0, 0x1p-8);
    check_against_naive<f16>(DType::f16, sizes, true, 0.0, 0x1p-11);
  }
  check_against_naive<float>(DType::f32, {70, 600, 3, 2, 2, 0}, false, 0.2, 1e-6);
  test_threads_start_only_where_they_pay();
  test_threads_change_no_bit();
  test_selection();
  test_extremes_and_wrong_labels();
  return check_result();
}
