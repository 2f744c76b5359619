// variational on the GPU. Forward: one block per image. Backward: one block per image (dmu, dlogvar, and z for the second
// kernel), then one block per centre and 32 coordinates, which sums over the images in a fixed order.
#include "cuda/variational.h"

#include "cuda/reduce.cuh"

namespace dkpnet::cuda {

namespace va = dkpnet::variational;

constexpr int kThreads = 128, kWarps = kThreads / 32;
constexpr int kLanes = 32, kRows = 8;  // of the second backward kernel: coordinates, groups of images
constexpr int kMostDim = kVariationalMostDim, kMostDomains = kVariationalMostDomains;

template <typename T>
static __device__ __forceinline__ wide_t<T> noise(const VariationalSizes& s, const VariationalInputs& in, int64_t n,
                                                  int64_t b, int64_t j) {
  if (in.eps) return widen(static_cast<const T*>(in.eps)[(n * s.batch + b) * s.dim + j]);
  return normal(static_cast<uint64_t>(*in.seed), static_cast<uint64_t>(((s.first + b) * s.samples + n) * s.dim + j));
}

// The dot product of two rows by one warp; every lane gets it.
template <typename A, typename B>
static __device__ __forceinline__ wide_t<B> warp_dot(const A* a, const B* b, int64_t count) {
  wide_t<B> sum = 0;
  for (int64_t j = threadIdx.x % 32; j < count; j += 32) sum += widen(a[j]) * widen(b[j]);
  return warp_sum(sum);
}

template <typename T>
__global__ void __launch_bounds__(kThreads, 2)
    forward_kernel(VariationalSizes s, VariationalInputs in, double dropout, uint32_t threshold, VariationalOutputs out) {
  using W = wide_t<T>;
  __shared__ W z[kMostDim], logits[kMostDomains], partial[kWarps];
  __shared__ int chosen[kMostDomains];
  const int64_t b = blockIdx.x;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const T *mu = static_cast<const T*>(in.mu) + b * s.dim, *logvar = static_cast<const T*>(in.logvar) + b * s.dim;
  const T* centers = static_cast<const T*>(in.centers);

  // Eq. 8, one warp per domain.
  for (int64_t c = warp; c < s.domains; c += kWarps) {
    int best_index = 0;
    if (s.subs > 1) {
      W best = 0;
      for (int i = 0; i < s.subs; ++i) {
        W score = warp_dot(mu, centers + (c * s.subs + i) * s.dim, s.dim);
        if (dropout > 0) {
          const int64_t element = ((s.first + b) * s.domains + c) * s.subs + i;
          score = va::dropped(score, static_cast<uint64_t>(*in.seed), static_cast<uint64_t>(element), threshold,
                              W(1.0 - dropout));
        }
        if (i == 0 || score > best) {
          best = score;
          best_index = i;
        }
      }
    }
    if (lane == 0) {
      chosen[c] = best_index;
      out.selected[b * s.domains + c] = best_index;
    }
  }
  __syncthreads();

  const int64_t label = in.labels[b];
  const bool valid = label >= 0 && label < s.domains;
  W kl = 0, logdet = 0, lse = 0;
  if (valid) {
    const T* own = centers + (label * s.subs + chosen[label]) * s.dim;
    const T* prior = static_cast<const T*>(in.prior_logvar) + label * s.dim;
    for (int64_t j = threadIdx.x; j < s.dim; j += kThreads) {
      kl += va::kl(widen(mu[j]), widen(logvar[j]), widen(own[j]), widen(prior[j]));
      logdet += widen(prior[j]);
    }
  }
  kl = block_sum(kl, partial);
  logdet = block_sum(logdet, partial);

  for (int64_t n = 0; n < s.samples; ++n) {
    for (int64_t j = threadIdx.x; j < s.dim; j += kThreads) {
      z[j] = widen(mu[j]) + va::deviation(widen(logvar[j])) * noise<T>(s, in, n, b, j);
      static_cast<T*>(out.z)[(n * s.batch + b) * s.dim + j] = narrow<T>(z[j]);
    }
    __syncthreads();
    for (int64_t c = warp; c < s.domains; c += kWarps) {
      const W logit = warp_dot(z, centers + (c * s.subs + chosen[c]) * s.dim, s.dim);
      if (lane == 0) logits[c] = logit;
    }
    __syncthreads();
    // Every warp computes the log-sum-exp, so that no more synchronising is needed; warp 0 stores.
    W greatest = logits[0], sum = 0;
    for (int64_t c = 1; c < s.domains; ++c) greatest = logits[c] > greatest ? logits[c] : greatest;
    for (int64_t c = lane; c < s.domains; c += 32) sum += exp_of(logits[c] - greatest);
    sum = warp_sum(sum);
    lse += log_of(sum) + (greatest - (valid ? logits[label] : W(NAN)));
    W* p = static_cast<W*>(out.probabilities) + (n * s.batch + b) * s.domains;
    for (int64_t c = threadIdx.x; c < s.domains; c += kThreads)
      p[c] = valid ? exp_of(logits[c] - greatest) / sum : W(NAN);
    // The next sample's z and logits need no barrier here: of the two above, one lies between every use and its next write.
  }
  if (threadIdx.x == 0) {
    static_cast<W*>(out.kl)[b] = valid ? kl : W(NAN);
    static_cast<W*>(out.lse)[b] = lse / W(s.samples);
    static_cast<W*>(out.logdet2)[b] = valid ? logdet * logdet : W(NAN);
  }
}

template <typename T>
__global__ void __launch_bounds__(kThreads, 2)
    backward_images_kernel(VariationalSizes s, VariationalInputs in, VariationalGradients grad) {
  using W = wide_t<T>;
  const int64_t b = blockIdx.x;
  const T* centers = static_cast<const T*>(in.centers);
  const int64_t* selected = grad.selected + b * s.domains;
  const int64_t label = in.labels[b];
  const bool valid = label >= 0 && label < s.domains;
  const int64_t safe = valid ? label : 0;  // the gradients are NaN all the same, through the probabilities
  const T* own = centers + (safe * s.subs + selected[safe]) * s.dim;
  const T* prior = static_cast<const T*>(in.prior_logvar) + safe * s.dim;
  const W dkl = static_cast<const W*>(grad.dkl)[b], dlse = static_cast<const W*>(grad.dlse)[b] / W(s.samples);

  for (int64_t j = threadIdx.x; j < s.dim; j += kThreads) {
    const W mu = widen(static_cast<const T*>(in.mu)[b * s.dim + j]);
    const W logvar = widen(static_cast<const T*>(in.logvar)[b * s.dim + j]);
    const va::KlGradient<W> g = va::kl_gradient(dkl, mu, logvar, widen(own[j]), widen(prior[j]));
    const W deviation = va::deviation(logvar);
    W dmu = g.mu, dlogvar = g.logvar;
    for (int64_t n = 0; n < s.samples; ++n) {
      const int64_t row = n * s.batch + b;
      const W* p = static_cast<const W*>(grad.probabilities) + row * s.domains;
      W dz = widen(static_cast<const T*>(grad.dz)[row * s.dim + j]);
      for (int64_t c = 0; c < s.domains; ++c)
        dz += va::lse_gradient(dlse, p[c], c == label) * widen(centers[(c * s.subs + selected[c]) * s.dim + j]);
      const W eps = noise<T>(s, in, n, b, j);
      dmu += dz;
      dlogvar += W(0.5) * dz * eps * deviation;
      static_cast<W*>(grad.z_workspace)[row * s.dim + j] = mu + deviation * eps;
    }
    static_cast<T*>(grad.dmu)[b * s.dim + j] = narrow<T>(dmu);
    static_cast<T*>(grad.dlogvar)[b * s.dim + j] = narrow<T>(dlogvar);
  }
}

// A block has one centre (c, i) and 32 coordinates. Each of its warps takes every kRows-th image; the warps' sums are added
// in order. The block of i = 0 also has the gradient of domain c's prior_logvar.
template <typename T>
__global__ void __launch_bounds__(kLanes * kRows, 2)
    backward_centers_kernel(VariationalSizes s, VariationalInputs in, VariationalGradients grad) {
  using W = wide_t<T>;
  __shared__ W sums[2][kRows][kLanes];
  const int64_t tiles = (s.dim + kLanes - 1) / kLanes, center = blockIdx.x / tiles;
  const int64_t c = center / s.subs, i = center % s.subs;
  const int lane = threadIdx.x % kLanes, r = threadIdx.x / kLanes;
  const int64_t j = blockIdx.x % tiles * kLanes + lane;
  const bool inside = j < s.dim;
  const T* prior = static_cast<const T*>(in.prior_logvar) + c * s.dim;
  const W *probabilities = static_cast<const W*>(grad.probabilities), *z = static_cast<const W*>(grad.z_workspace);
  W logdet = 0;
  if (i == 0) {  // every warp sums the whole row: no synchronising
    for (int64_t q = lane; q < s.dim; q += kLanes) logdet += widen(prior[q]);
    logdet = warp_sum(logdet);
  }
  W dcenter = 0, dprior = 0;
  for (int64_t b = r; b < s.batch && inside; b += kRows) {
    const bool own = in.labels[b] == c;
    const int64_t chosen = grad.selected[b * s.domains + c];
    const W dkl = static_cast<const W*>(grad.dkl)[b], dlse = static_cast<const W*>(grad.dlse)[b] / W(s.samples);
    if (chosen == i) {
      for (int64_t n = 0; n < s.samples; ++n) {
        const int64_t row = n * s.batch + b;
        dcenter += va::lse_gradient(dlse, probabilities[row * s.domains + c], own) * z[row * s.dim + j];
      }
    }
    if (own && (chosen == i || i == 0)) {
      const W u = widen(static_cast<const T*>(in.centers)[(c * s.subs + chosen) * s.dim + j]);
      const va::KlGradient<W> g = va::kl_gradient(dkl, widen(static_cast<const T*>(in.mu)[b * s.dim + j]),
                                                  widen(static_cast<const T*>(in.logvar)[b * s.dim + j]), u,
                                                  widen(prior[j]));
      if (chosen == i) dcenter -= g.mu;
      dprior += g.prior + W(2) * static_cast<const W*>(grad.dlogdet2)[b] * logdet;
    }
  }
  sums[0][r][lane] = dcenter;
  sums[1][r][lane] = dprior;
  __syncthreads();
  if (r != 0 || !inside) return;
  for (int row = 1; row < kRows; ++row) {
    dcenter += sums[0][row][lane];
    dprior += sums[1][row][lane];
  }
  static_cast<T*>(grad.dcenters)[(c * s.subs + i) * s.dim + j] = narrow<T>(dcenter);
  if (i == 0) static_cast<T*>(grad.dprior_logvar)[c * s.dim + j] = narrow<T>(dprior);
}

#ifdef __CUDACC__

int variational_forward(DType dtype, const VariationalSizes& sizes, const VariationalInputs& in, double dropout,
                        const VariationalOutputs& out, void* stream) {
  if (sizes.batch == 0) return 0;
  return with_dtype(dtype, [&](auto type) {
    using T = decltype(type);
    forward_kernel<T><<<static_cast<unsigned>(sizes.batch), kThreads, 0, static_cast<cudaStream_t>(stream)>>>(
        sizes, in, dropout, static_cast<uint32_t>(dropout * 4294967296.0), out);
    return static_cast<int>(cudaGetLastError());
  });
}

int variational_backward(DType dtype, const VariationalSizes& sizes, const VariationalInputs& in,
                         const VariationalGradients& grad, void* stream) {
  return with_dtype(dtype, [&](auto type) {
    using T = decltype(type);
    const auto s = static_cast<cudaStream_t>(stream);
    if (sizes.batch > 0)
      backward_images_kernel<T><<<static_cast<unsigned>(sizes.batch), kThreads, 0, s>>>(sizes, in, grad);
    // Also without images: the gradients of the parameters are zeros then.
    const int64_t blocks = sizes.domains * sizes.subs * ((sizes.dim + kLanes - 1) / kLanes);
    backward_centers_kernel<T><<<static_cast<unsigned>(blocks), kLanes * kRows, 0, s>>>(sizes, in, grad);
    return static_cast<int>(cudaGetLastError());
  });
}

#endif  // __CUDACC__

}  // namespace dkpnet::cuda
