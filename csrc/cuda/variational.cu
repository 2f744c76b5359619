// variational on the GPU. Forward: one block per image. Backward: one block per image (dmu, dlogvar, and z for the
// second kernel), then one block per centre and 32 coordinates, which sums over the images in a fixed order.
#include "cuda/reduce.cuh"
#include "math/variational.h"

namespace dkpnet::cuda {

namespace va = dkpnet::variational;

constexpr int kThreads = 128, kWarps = kThreads / 32;
constexpr int kLanes = 32, kRows = 8;  // of the second backward kernel: coordinates, groups of images
// What fits into a block's shared memory: a row of z, the logits of an image.
constexpr int kMostDim = 2048, kMostDomains = 1024;

template <typename T>
static __device__ __forceinline__ wide_t<T> noise(const va::Problem& args, int64_t n, int64_t b, int64_t j) {
  if (args.eps) return widen(static_cast<const T*>(args.eps)[(n * args.batch + b) * args.dim + j]);
  return normal(static_cast<uint64_t>(*args.seed),
                static_cast<uint64_t>(((args.batch_offset + b) * args.samples + n) * args.dim + j));
}

// The dot product of two rows by one warp; every lane gets it.
template <typename A, typename B>
static __device__ __forceinline__ wide_t<B> warp_dot(const A* a, const B* b, int64_t count) {
  wide_t<B> sum = 0;
  for (int64_t j = threadIdx.x % 32; j < count; j += 32) sum += widen(a[j]) * widen(b[j]);
  return warp_sum(sum);
}

template <typename T>
__global__ void __launch_bounds__(kThreads, 2) forward_kernel(va::Forward args, uint32_t threshold) {
  using W = wide_t<T>;
  __shared__ W z[kMostDim], logits[kMostDomains], partial[kWarps];
  __shared__ double partial_logdet[kWarps];
  __shared__ int chosen[kMostDomains];
  const int64_t b = blockIdx.x;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const T *mu = static_cast<const T*>(args.mu) + b * args.dim,
          *logvar = static_cast<const T*>(args.logvar) + b * args.dim;
  const T* centers = static_cast<const T*>(args.centers);

  // Eq. 8, one warp per domain.
  for (int64_t c = warp; c < args.domains; c += kWarps) {
    int best_index = 0;
    if (args.subs > 1) {
      W best = 0;
      for (int i = 0; i < args.subs; ++i) {
        const W agreement = warp_dot(mu, centers + (c * args.subs + i) * args.dim, args.dim);
        const W score = va::dropped(args, b, c, i, threshold, agreement);
        if (i == 0 || score > best) {
          best = score;
          best_index = i;
        }
      }
    }
    if (lane == 0) {
      chosen[c] = best_index;
      args.selected[b * args.domains + c] = best_index;
    }
  }
  __syncthreads();

  const int64_t label = args.labels[b];
  const bool valid = va::valid_label(label, args.domains);
  W kl = 0, lse = 0;
  double sum_of_prior = 0;  // in double: squaring it amplifies the rounding error
  if (valid) {
    const T* own = centers + (label * args.subs + chosen[label]) * args.dim;
    const T* prior = static_cast<const T*>(args.prior_logvar) + label * args.dim;
    for (int64_t j = threadIdx.x; j < args.dim; j += kThreads) {
      kl += va::kl(widen(mu[j]), widen(logvar[j]), widen(own[j]), widen(prior[j]));
      sum_of_prior += double(widen(prior[j]));
    }
  }
  kl = block_sum(kl, partial);
  const double logdet = block_sum(sum_of_prior, partial_logdet);

  for (int64_t n = 0; n < args.samples; ++n) {
    for (int64_t j = threadIdx.x; j < args.dim; j += kThreads) {
      z[j] = widen(mu[j]) + va::deviation(widen(logvar[j])) * noise<T>(args, n, b, j);
      static_cast<T*>(args.z)[(n * args.batch + b) * args.dim + j] = narrow<T>(z[j]);
    }
    __syncthreads();
    for (int64_t c = warp; c < args.domains; c += kWarps) {
      const W logit = warp_dot(z, centers + (c * args.subs + chosen[c]) * args.dim, args.dim);
      if (lane == 0) logits[c] = logit;
    }
    __syncthreads();
    // Every warp computes the log-sum-exp, so no further barrier is needed; warp 0 stores it.
    W greatest = logits[0], sum = 0;
    for (int64_t c = 1; c < args.domains; ++c) greatest = logits[c] > greatest ? logits[c] : greatest;
    for (int64_t c = lane; c < args.domains; c += 32) sum += exp_of(logits[c] - greatest);
    sum = warp_sum(sum);
    lse += log_of(sum) + (greatest - (valid ? logits[label] : W(NAN)));
    W* p = static_cast<W*>(args.probabilities) + (n * args.batch + b) * args.domains;
    for (int64_t c = threadIdx.x; c < args.domains; c += kThreads)
      p[c] = valid ? exp_of(logits[c] - greatest) / sum : W(NAN);
    // The next sample's z and logits need no barrier here: of the two above, one lies between every use and its next
    // write.
  }
  if (threadIdx.x == 0) {
    static_cast<W*>(args.kl)[b] = valid ? kl : W(NAN);
    static_cast<W*>(args.lse)[b] = lse / W(args.samples);
    static_cast<W*>(args.logdet2)[b] = valid ? W(logdet * logdet) : W(NAN);
  }
}

template <typename T>
__global__ void __launch_bounds__(kThreads, 2) backward_images_kernel(va::Backward args) {
  using W = wide_t<T>;
  const int64_t b = blockIdx.x;
  const T* centers = static_cast<const T*>(args.centers);
  const int64_t* selected = args.selected + b * args.domains;
  const int64_t label = args.labels[b];
  const bool valid = va::valid_label(label, args.domains);
  const int64_t safe = valid ? label : 0;  // the gradients are still NaN, through the probabilities
  const T* own = centers + (safe * args.subs + selected[safe]) * args.dim;
  const T* prior = static_cast<const T*>(args.prior_logvar) + safe * args.dim;
  const W dkl = static_cast<const W*>(args.dkl)[b], dlse = static_cast<const W*>(args.dlse)[b] / W(args.samples);

  for (int64_t j = threadIdx.x; j < args.dim; j += kThreads) {
    const W mu = widen(static_cast<const T*>(args.mu)[b * args.dim + j]);
    const W logvar = widen(static_cast<const T*>(args.logvar)[b * args.dim + j]);
    const va::KlGradient<W> g = va::kl_gradient(dkl, mu, logvar, widen(own[j]), widen(prior[j]));
    const W deviation = va::deviation(logvar);
    W dmu = g.mu, dlogvar = g.logvar;
    for (int64_t n = 0; n < args.samples; ++n) {
      const int64_t row = n * args.batch + b;
      const W* p = static_cast<const W*>(args.probabilities) + row * args.domains;
      W dz = widen(static_cast<const T*>(args.dz)[row * args.dim + j]);
      for (int64_t c = 0; c < args.domains; ++c)
        dz += va::lse_gradient(dlse, p[c], c == label) * widen(centers[(c * args.subs + selected[c]) * args.dim + j]);
      const W eps = noise<T>(args, n, b, j);
      dmu += dz;
      dlogvar += W(0.5) * dz * eps * deviation;
      static_cast<W*>(args.workspace)[row * args.dim + j] = mu + deviation * eps;
    }
    static_cast<T*>(args.dmu)[b * args.dim + j] = narrow<T>(dmu);
    static_cast<T*>(args.dlogvar)[b * args.dim + j] = narrow<T>(dlogvar);
  }
}

// A block has one centre (c, i) and 32 coordinates. Each of its warps takes every kRows-th image; the warps' sums are
// added in order. The block of i = 0 also has the gradient of domain c's prior_logvar.
template <typename T>
__global__ void __launch_bounds__(kLanes* kRows, 2) backward_centers_kernel(va::Backward args) {
  using W = wide_t<T>;
  __shared__ W sums[2][kRows][kLanes];
  const int64_t tiles = (args.dim + kLanes - 1) / kLanes, center = blockIdx.x / tiles;
  const int64_t c = center / args.subs, i = center % args.subs;
  const int lane = threadIdx.x % kLanes, r = threadIdx.x / kLanes;
  const int64_t j = blockIdx.x % tiles * kLanes + lane;
  const bool inside = j < args.dim;
  const T* prior = static_cast<const T*>(args.prior_logvar) + c * args.dim;
  const W *probabilities = static_cast<const W*>(args.probabilities), *z = static_cast<const W*>(args.workspace);
  W logdet = 0;
  if (i == 0) {  // every warp sums the whole row, so no barrier is needed
    double sum = 0;
    for (int64_t q = lane; q < args.dim; q += kLanes) sum += double(widen(prior[q]));
    logdet = W(warp_sum(sum));
  }
  W dcenter = 0, dprior = 0;
  for (int64_t b = r; b < args.batch && inside; b += kRows) {
    const bool own = args.labels[b] == c;
    const int64_t chosen = args.selected[b * args.domains + c];
    const W dkl = static_cast<const W*>(args.dkl)[b], dlse = static_cast<const W*>(args.dlse)[b] / W(args.samples);
    if (chosen == i && va::valid_label(args.labels[b], args.domains)) {
      for (int64_t n = 0; n < args.samples; ++n) {
        const int64_t row = n * args.batch + b;
        dcenter += va::lse_gradient(dlse, probabilities[row * args.domains + c], own) * z[row * args.dim + j];
      }
    }
    if (own && (chosen == i || i == 0)) {
      const W u = widen(static_cast<const T*>(args.centers)[(c * args.subs + chosen) * args.dim + j]);
      const va::KlGradient<W> g =
          va::kl_gradient(dkl, widen(static_cast<const T*>(args.mu)[b * args.dim + j]),
                          widen(static_cast<const T*>(args.logvar)[b * args.dim + j]), u, widen(prior[j]));
      if (chosen == i) dcenter -= g.mu;
      dprior += g.prior + W(2) * static_cast<const W*>(args.dlogdet2)[b] * logdet;
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
  static_cast<T*>(args.dcenters)[(c * args.subs + i) * args.dim + j] = narrow<T>(dcenter);
  if (i == 0) static_cast<T*>(args.dprior_logvar)[c * args.dim + j] = narrow<T>(dprior);
}

#ifdef __CUDACC__

int variational_forward(const va::Forward& args, void* stream) {
  if (args.batch == 0) return 0;
  with_dtype(args.dtype, [&](auto type) {
    using T = decltype(type);
    forward_kernel<T><<<static_cast<unsigned>(args.batch), kThreads, 0, static_cast<cudaStream_t>(stream)>>>(
        args, static_cast<uint32_t>(args.dropout * 4294967296.0));
  });
  return cudaGetLastError();
}

int variational_backward(const va::Backward& args, void* stream) {
  with_dtype(args.dtype, [&](auto type) {
    using T = decltype(type);
    const auto s = static_cast<cudaStream_t>(stream);
    if (args.batch > 0) backward_images_kernel<T><<<static_cast<unsigned>(args.batch), kThreads, 0, s>>>(args);
    // Also without images: the gradients of the parameters are zeros then.
    const int64_t blocks = args.domains * args.subs * ((args.dim + kLanes - 1) / kLanes);
    backward_centers_kernel<T><<<static_cast<unsigned>(blocks), kLanes * kRows, 0, s>>>(args);
  });
  return cudaGetLastError();
}

#endif  // __CUDACC__

}  // namespace dkpnet::cuda
