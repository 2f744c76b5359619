"""Sampling and its three regularisers in one launch each way: z, KL, log-sum-exp, log^2 det, centre selection.

Every backend module (this file's native functions, `ops/triton/variational.py`) has

    forward(mu, logvar, centers, prior_logvar, labels, seed, eps, num_samples, dropout, first)
        -> (z, kl, lse, logdet2, selected, probabilities)
    backward(dz, dkl, dlse, dlogdet2, mu, logvar, centers, prior_logvar, labels, seed, eps, selected, probabilities, first)
        -> (dmu, dlogvar, dcenters, dprior_logvar)

All tensors contiguous. mu, logvar [B, d], centers [C, k, d], prior_logvar [C, d] and eps [N, B, d] (or None: Philox
noise of `seed`) share one dtype, as do z [N, B, d], dz and the four gradients; labels [B] int64; seed [1] int64 on the
same device, or None where neither noise nor dropout needs it. "Wide" is float64 for float64, else float32: kl, lse,
logdet2 [B], their upstream gradients and probabilities [N, B, C] (softmax of the logits z . u_c) are wide. selected
[B, C] int64. Noise and dropout follow the Philox mapping of `ops/philox.py` with elements
((first + b) * N + n) * d + j and ((first + b) * C + c) * k + i. B may be 0. An image whose label is outside [0, C) has
NaN in kl, lse, logdet2 and probabilities, and hence in the gradients that they reach; nothing is read out of bounds.
"""
