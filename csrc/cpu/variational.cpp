#include "cpu/variational.h"

#include "cpu/parallel.h"

namespace dkpnet::cpu::DKPNET_ISA {

namespace va = dkpnet::variational;

constexpr int64_t kChunk = 256;  // latent coordinates at a time; a multiple of 4

// Normals of elements [start, start + count), count <= kChunk.
static void fill_normals(uint64_t seed, uint64_t start, int64_t count, float* out) {
  constexpr int64_t most = kChunk / 4 + 1;
  uint32_t word[4][most];
  float normals[4][most];
  const uint64_t q = start >> 2;
  const int64_t offset = static_cast<int64_t>(start & 3u), blocks = (offset + count + 3) / 4;
#pragma omp simd
  for (int64_t i = 0; i < blocks; ++i) {
    const PhiloxBlock block = philox(seed, q + static_cast<uint64_t>(i), kNormalStream);
    word[0][i] = block.word[0];
    word[1][i] = block.word[1];
    word[2][i] = block.word[2];
    word[3][i] = block.word[3];
  }
#pragma omp simd
  for (int64_t i = 0; i < blocks; ++i) normal_pair(word[0][i], word[1][i], normals[0][i], normals[1][i]);
#pragma omp simd
  for (int64_t i = 0; i < blocks; ++i) normal_pair(word[2][i], word[3][i], normals[2][i], normals[3][i]);
  for (int64_t i = 0; i < count; ++i) out[i] = normals[(offset + i) & 3][(offset + i) >> 2];
}

// One (image, sample) row of noise, a chunk at a time: explicit, or drawn from the seed.
template <typename T>
struct Noise {
  const T* eps;
  uint64_t seed, start;
  Noise(const va::Problem& args, int64_t n, int64_t b)
      : eps(args.eps ? static_cast<const T*>(args.eps) + (n * args.batch + b) * args.dim : nullptr),
        seed(args.seed ? static_cast<uint64_t>(*args.seed) : 0),
        start(static_cast<uint64_t>(((args.batch_offset + b) * args.samples + n) * args.dim)) {}
  void fill(int64_t j, int64_t count, wide_t<T>* out) const {
    if (eps) {
      for (int64_t i = 0; i < count; ++i) out[i] = widen(eps[j + i]);
    } else {
      float normals[kChunk];
      fill_normals(seed, start + static_cast<uint64_t>(j), count, normals);
      for (int64_t i = 0; i < count; ++i) out[i] = normals[i];
    }
  }
};

// The sum of term(0) to term(count - 1), in an order that does not depend on the instruction set.
template <typename W, typename Term>
static W sum_of(int64_t count, const Term& term) {
  constexpr int64_t lanes = 16;
  W sums[lanes] = {};
  int64_t j = 0;
  for (; j + lanes <= count; j += lanes) {
#pragma omp simd
    for (int64_t lane = 0; lane < lanes; ++lane) sums[lane] += term(j + lane);
  }
  for (; j < count; ++j) sums[j % lanes] += term(j);
  for (int64_t half = lanes / 2; half > 0; half /= 2)
    for (int64_t lane = 0; lane < half; ++lane) sums[lane] += sums[lane + half];
  return sums[0];
}

template <typename A, typename B>
static wide_t<B> dot(const A* a, const B* b, int64_t count) {
  return sum_of<wide_t<B>>(count, [=](int64_t j) { return widen(a[j]) * widen(b[j]); });
}

// sum_d Lambda_cd. In double: squaring it amplifies the rounding error, and the extra cost is negligible.
template <typename T>
static double log_determinant(const T* prior, int64_t dim) {
  return sum_of<double>(dim, [=](int64_t j) { return double(widen(prior[j])); });
}

// Eq. 8 for one image: in every domain the sub-component with the greatest score, the first of equal ones.
template <typename T>
static void select(const va::Forward& args, int64_t b, int64_t* selected) {
  using W = wide_t<T>;
  const T *mu = static_cast<const T*>(args.mu) + b * args.dim, *centers = static_cast<const T*>(args.centers);
  const uint32_t threshold = static_cast<uint32_t>(args.dropout * 4294967296.0);
  for (int64_t c = 0; c < args.domains; ++c) {
    W best = 0;
    selected[c] = 0;
    for (int64_t i = 0; i < args.subs && args.subs > 1; ++i) {
      const W agreement = dot(mu, centers + (c * args.subs + i) * args.dim, args.dim);
      const W score = va::dropped(args, b, c, i, threshold, agreement);
      if (i == 0 || score > best) {
        best = score;
        selected[c] = i;
      }
    }
  }
}

template <typename T>
static void forward_image(const va::Forward& args, int64_t b) {
  using W = wide_t<T>;
  const T *mu = static_cast<const T*>(args.mu) + b * args.dim,
          *logvar = static_cast<const T*>(args.logvar) + b * args.dim;
  const T* centers = static_cast<const T*>(args.centers);
  int64_t* selected = args.selected + b * args.domains;
  select<T>(args, b, selected);
  const int64_t label = args.labels[b];
  const bool valid = va::valid_label(label, args.domains);
  auto center = [&](int64_t c) { return centers + (c * args.subs + selected[c]) * args.dim; };

  double logdet = NAN;
  W kl = NAN, lse = valid ? W(0) : W(NAN);
  if (valid) {
    const T *own = center(label), *prior = static_cast<const T*>(args.prior_logvar) + label * args.dim;
    kl = sum_of<W>(args.dim,
                   [=](int64_t j) { return va::kl(widen(mu[j]), widen(logvar[j]), widen(own[j]), widen(prior[j])); });
    logdet = log_determinant(prior, args.dim);
  }

  for (int64_t n = 0; n < args.samples; ++n) {
    T* z = static_cast<T*>(args.z) + (n * args.batch + b) * args.dim;
    W* p = static_cast<W*>(args.probabilities) + (n * args.batch + b) * args.domains;
    const Noise<T> noise(args, n, b);
    for (int64_t c = 0; c < args.domains; ++c) p[c] = 0;
    for (int64_t j = 0; j < args.dim; j += kChunk) {
      const int64_t count = args.dim - j < kChunk ? args.dim - j : kChunk;
      W chunk[kChunk];  // the noise, then z before it is rounded to T
      noise.fill(j, count, chunk);
#pragma omp simd
      for (int64_t i = 0; i < count; ++i) {
        chunk[i] = widen(mu[j + i]) + va::deviation(widen(logvar[j + i])) * chunk[i];
        z[j + i] = narrow<T>(chunk[i]);
      }
      for (int64_t c = 0; c < args.domains; ++c) p[c] += dot(chunk, center(c) + j, count);
    }
    // Softmax and log-sum-exp of the logits, with the greatest subtracted.
    W greatest = p[0], sum = 0;
    for (int64_t c = 1; c < args.domains; ++c) greatest = p[c] > greatest ? p[c] : greatest;
    const W own = valid ? p[label] : W(NAN);
    for (int64_t c = 0; c < args.domains; ++c) sum += p[c] = exp_of(p[c] - greatest);
    for (int64_t c = 0; c < args.domains; ++c) p[c] = valid ? p[c] / sum : W(NAN);
    lse += log_of(sum) + (greatest - own);
  }
  static_cast<W*>(args.kl)[b] = kl;
  static_cast<W*>(args.lse)[b] = lse / W(args.samples);
  static_cast<W*>(args.logdet2)[b] = W(logdet * logdet);
}

// dmu and dlogvar of one image, and its z in the wide type for the gradients of the parameters.
template <typename T>
static void backward_image(const va::Backward& args, int64_t b) {
  using W = wide_t<T>;
  const T *mu = static_cast<const T*>(args.mu) + b * args.dim,
          *logvar = static_cast<const T*>(args.logvar) + b * args.dim;
  const T* centers = static_cast<const T*>(args.centers);
  const int64_t* selected = args.selected + b * args.domains;
  const int64_t label = args.labels[b];
  const bool valid = va::valid_label(label, args.domains);
  auto center = [&](int64_t c) { return centers + (c * args.subs + selected[c]) * args.dim; };
  const T *own = center(valid ? label : 0),
          *prior = static_cast<const T*>(args.prior_logvar) + (valid ? label : 0) * args.dim;
  const W dkl = static_cast<const W*>(args.dkl)[b], dlse = static_cast<const W*>(args.dlse)[b] / W(args.samples);

  for (int64_t j = 0; j < args.dim; j += kChunk) {
    const int64_t count = args.dim - j < kChunk ? args.dim - j : kChunk;
    W dmu[kChunk], dlogvar[kChunk], deviation[kChunk], noise[kChunk], dz[kChunk];
#pragma omp simd
    for (int64_t i = 0; i < count; ++i) {
      const va::KlGradient<W> g =
          va::kl_gradient(dkl, widen(mu[j + i]), widen(logvar[j + i]), widen(own[j + i]), widen(prior[j + i]));
      dmu[i] = g.mu;
      dlogvar[i] = g.logvar;
      deviation[i] = va::deviation(widen(logvar[j + i]));
    }
    for (int64_t n = 0; n < args.samples; ++n) {
      const T* upstream = static_cast<const T*>(args.dz) + (n * args.batch + b) * args.dim + j;
      const W* p = static_cast<const W*>(args.probabilities) + (n * args.batch + b) * args.domains;
      W* z = static_cast<W*>(args.workspace) + (n * args.batch + b) * args.dim + j;
      Noise<T>(args, n, b).fill(j, count, noise);
      for (int64_t i = 0; i < count; ++i) dz[i] = widen(upstream[i]);
      for (int64_t c = 0; c < args.domains; ++c) {
        const W weight = va::lse_gradient(dlse, p[c], c == label);
        const T* u = center(c) + j;
#pragma omp simd
        for (int64_t i = 0; i < count; ++i) dz[i] += weight * widen(u[i]);
      }
#pragma omp simd
      for (int64_t i = 0; i < count; ++i) {
        dmu[i] += dz[i];
        dlogvar[i] += W(0.5) * dz[i] * noise[i] * deviation[i];
        z[i] = widen(mu[j + i]) + deviation[i] * noise[i];
      }
    }
    for (int64_t i = 0; i < count; ++i) {
      static_cast<T*>(args.dmu)[b * args.dim + j + i] = narrow<T>(dmu[i]);
      static_cast<T*>(args.dlogvar)[b * args.dim + j + i] = narrow<T>(dlogvar[i]);
    }
  }
}

// The gradient of centre (c, i), and with i = 0 that of domain c's prior_logvar: sums over the images in their order.
template <typename T>
static void backward_center(const va::Backward& args, int64_t c, int64_t i) {
  using W = wide_t<T>;
  const T *mu = static_cast<const T*>(args.mu), *logvar = static_cast<const T*>(args.logvar);
  const T* prior = static_cast<const T*>(args.prior_logvar) + c * args.dim;
  const W *p = static_cast<const W*>(args.probabilities), *z = static_cast<const W*>(args.workspace);
  const double logdet = i == 0 ? log_determinant(prior, args.dim) : 0;

  for (int64_t j = 0; j < args.dim; j += kChunk) {
    const int64_t count = args.dim - j < kChunk ? args.dim - j : kChunk;
    W dcenter[kChunk] = {}, dprior[kChunk] = {};
    for (int64_t b = 0; b < args.batch; ++b) {
      const bool own = args.labels[b] == c;
      const int64_t chosen = args.selected[b * args.domains + c];
      const W dkl = static_cast<const W*>(args.dkl)[b], dlse = static_cast<const W*>(args.dlse)[b] / W(args.samples);
      const T *m = mu + b * args.dim + j, *v = logvar + b * args.dim + j;
      if (chosen == i && va::valid_label(args.labels[b], args.domains)) {
        for (int64_t n = 0; n < args.samples; ++n) {
          const int64_t row = n * args.batch + b;
          const W weight = va::lse_gradient(dlse, p[row * args.domains + c], own);
          const W* zrow = z + row * args.dim + j;
#pragma omp simd
          for (int64_t q = 0; q < count; ++q) dcenter[q] += weight * zrow[q];
        }
      }
      if (own && (chosen == i || i == 0)) {
        const T* u = static_cast<const T*>(args.centers) + (c * args.subs + chosen) * args.dim + j;
        const W to_center = chosen == i ? W(1) : W(0);
        const W shift = W(2) * static_cast<const W*>(args.dlogdet2)[b] * W(logdet);
#pragma omp simd
        for (int64_t q = 0; q < count; ++q) {
          const va::KlGradient<W> g = va::kl_gradient(dkl, widen(m[q]), widen(v[q]), widen(u[q]), widen(prior[j + q]));
          dcenter[q] -= to_center * g.mu;
          dprior[q] += g.prior + shift;
        }
      }
    }
    for (int64_t q = 0; q < count; ++q)
      static_cast<T*>(args.dcenters)[(c * args.subs + i) * args.dim + j + q] = narrow<T>(dcenter[q]);
    for (int64_t q = 0; q < count && i == 0; ++q)
      static_cast<T*>(args.dprior_logvar)[c * args.dim + j + q] = narrow<T>(dprior[q]);
  }
}

static void forward(const va::Forward& args, int threads) {
  with_dtype(args.dtype, [&](auto type) {
    using T = decltype(type);
    parallel_each(args.batch, images_per_thread(args), threads, [&](int64_t b) { forward_image<T>(args, b); });
  });
}

static void backward(const va::Backward& args, int threads) {
  with_dtype(args.dtype, [&](auto type) {
    using T = decltype(type);
    parallel_each(args.batch, images_per_thread(args), threads, [&](int64_t b) { backward_image<T>(args, b); });
    parallel_each(args.domains * args.subs, centers_per_thread(args), threads,
                  [&](int64_t item) { backward_center<T>(args, item / args.subs, item % args.subs); });
  });
}

const VariationalKernels variational{forward, backward};

}  // namespace dkpnet::cpu::DKPNET_ISA
