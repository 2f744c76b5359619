// The variational terms of one latent coordinate, forward and backward (Eq. numbers are the paper's).
// W is float or double. mu, logvar: the encoder's; center, prior: u_cd and Lambda_cd of the image's own domain.
#pragma once

#include "math/philox.h"

namespace dkpnet::variational {

// Arrays are dense and row-major; T is the dtype, W its wide type (float64 for float64, else float32). A null seed
// means that no noise is drawn, a null eps that the noise comes from the seed.
struct Sizes {
  int64_t batch, dim, domains, subs, samples;
  int64_t batch_offset;  // index of this process' first image in the global batch
};
struct Problem : Sizes {
  DType dtype;
  const void *mu, *logvar;             // T [batch, dim]
  const void *centers, *prior_logvar;  // T [domains, subs, dim], [domains, dim]
  const int64_t* labels;               // [batch]
  const int64_t* seed;                 // [1]
  const void* eps;                     // T [samples, batch, dim]
};
struct Forward : Problem {
  double dropout;            // scores are kept with probability 1 - dropout; 0 switches it off
  void* z;                   // T [samples, batch, dim]
  void *kl, *lse, *logdet2;  // W [batch]
  int64_t* selected;         // [batch, domains]
  void* probabilities;       // W [samples, batch, domains]
};
struct Backward : Problem {
  const void* dz;                     // T [samples, batch, dim]
  const void *dkl, *dlse, *dlogdet2;  // W [batch]
  const int64_t* selected;            // of the forward pass, as are the probabilities
  const void* probabilities;
  void* workspace;                 // W [samples, batch, dim]: z, not rounded to T
  void *dmu, *dlogvar;             // T [batch, dim]
  void *dcenters, *dprior_logvar;  // T [domains, subs, dim], [domains, dim]
};

// An image whose label is outside [0, domains) has NaN in its terms and in its gradients (dmu, dlogvar); to the
// gradients of the parameters it adds nothing.
DKPNET_HD bool valid_label(int64_t label, int64_t domains) { return label >= 0 && label < domains; }

template <typename W>
DKPNET_HD W deviation(W logvar) {
  return exp_of(W(0.5) * logvar);
}

// Eq. 3, one summand. Near the prior e^x - 1 - x is tiny; computed term by term it would be rounding error only.
template <typename W>
DKPNET_HD W kl(W mu, W logvar, W center, W prior) {
  const W distance = center - mu;
  return W(0.5) * (exp_minus_1_minus_x(logvar - prior) + distance * distance * exp_of(-prior));
}

// Gradients of the KL term times its upstream gradient `a`; that of the centre is minus that of mu.
template <typename W>
struct KlGradient {
  W mu, logvar, prior;
};
template <typename W>
DKPNET_HD KlGradient<W> kl_gradient(W a, W mu, W logvar, W center, W prior) {
  const W distance = mu - center, precision = exp_of(-prior), growth = exp_minus_1(logvar - prior);
  return {a * distance * precision, a * W(0.5) * growth, -a * W(0.5) * (growth + distance * distance * precision)};
}

// d lse / d (z . u_c), with p = softmax_c(z . u): Eq. 6.
template <typename W>
DKPNET_HD W lse_gradient(W a, W p, bool own) {
  return a * (own ? p - W(1) : p);
}

// The score u . mu (Eq. 8) of image b and sub-component i of domain c, after dropout.
template <typename W>
DKPNET_HD W dropped(const Forward& args, int64_t b, int64_t c, int64_t i, uint32_t threshold, W score) {
  if (args.dropout <= 0) return score;
  const int64_t element = ((args.batch_offset + b) * args.domains + c) * args.subs + i;
  const bool keep = kept(static_cast<uint64_t>(*args.seed), static_cast<uint64_t>(element), threshold);
  return keep ? score / W(1.0 - args.dropout) : W(0);
}

}  // namespace dkpnet::variational

namespace dkpnet::cuda {  // see cuda/common.h
int variational_forward(const variational::Forward& args, void* stream);
int variational_backward(const variational::Backward& args, void* stream);
}  // namespace dkpnet::cuda
