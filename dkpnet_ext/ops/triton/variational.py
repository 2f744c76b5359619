"""Sampling and its regularisers in Triton: one kernel forward, two backward (images; then parameters, in fixed order).

Internal signatures as in `dkpnet_ext/ops/variational.py`; equations in csrc/math/variational.h. Arithmetic is float32
whatever the storage type; products and sums over domains run over a handful of centres, so no tensor cores.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from . import device_guard, philox

DROPOUT_STREAM = tl.constexpr(1)
ROWS, COLUMNS = 32, 32  # images and latent coordinates per step of the reduction over the batch


@triton.jit
def _exp(x):
    """exp within a few ulp for every finite x: tl.exp alone loses |x| ulp on a GPU, and logvar may be +-30."""
    power = tl.floor(x * 1.4426950408889634)
    rest = tl.fma(power, -1.428606765330187e-06, tl.fma(power, -0.693145751953125, x))  # ln 2 in two parts
    return tl.exp2(power) * tl.exp(rest)


@triton.jit
def _exp_minus_1(x):
    """e^x - 1, and e^x - 1 - x, with their relative accuracy kept near 0 (csrc/math/elementary.h)."""
    p = 1.9875691500e-4 * x + 1.3981999507e-3
    p = p * x + 8.3334519073e-3
    p = p * x + 4.1665795894e-2
    p = p * x + 1.6666665459e-1
    p = (p * x + 5.0000001201e-1) * (x * x)
    is_small = tl.abs(x) < 0.34
    far = _exp(x) - 1.0
    return tl.where(is_small, p + x, far), tl.where(is_small, p, far - x)


@triton.jit
def _noise(seed, eps, b, n, j, here, batch, dim, samples, batch_offset):
    """eps [dim] of image b's sample n, float32."""
    if eps is None:
        return philox.normal(tl.load(seed), ((batch_offset + b) * samples + n) * dim + j)
    else:
        return tl.load(eps + (n * batch + b) * dim + j, mask=here, other=0.0).to(tl.float32)


@triton.jit
def forward_kernel(
    mu,  # [B, d]
    logvar,  # [B, d]
    centers,  # [C, k, d]
    prior_logvar,  # [C, d]
    labels,  # [B] int64
    seed,  # [1] int64 or None
    eps,  # [N, B, d] or None: noise from the seed
    z,  # out [N, B, d]
    kl,  # out [B] float32, as lse and logdet2
    lse,
    logdet2,
    selected,  # out [B, C] int64
    probabilities,  # out [N, B, C] float32
    batch,
    dim,
    domains,
    subs,
    samples,
    batch_offset,
    threshold,  # a score is kept where its word is at least this
    DROPOUT: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    b = tl.program_id(0).to(tl.int64)
    j, c, i = tl.arange(0, BLOCK_D), tl.arange(0, BLOCK_C), tl.arange(0, BLOCK_K)
    here = j < dim
    mean = tl.load(mu + b * dim + j, mask=here, other=0.0).to(tl.float32)
    spread = tl.load(logvar + b * dim + j, mask=here, other=0.0).to(tl.float32)
    label = tl.load(labels + b)
    valid = (label >= 0) & (label < domains)
    own = tl.where(valid, label, 0)

    # Eq. 8 for every domain. The scale 1 / (1 - p) of what dropout keeps is left out: it moves no maximum.
    chosen = tl.zeros([BLOCK_C], tl.int64)
    for domain in range(domains):
        tile = centers + (domain * subs + i[:, None]).to(tl.int64) * dim + j[None, :]
        inside = (i[:, None] < subs) & here[None, :]
        score = tl.sum(tl.load(tile, mask=inside, other=0.0).to(tl.float32) * mean[None, :], axis=1)
        if DROPOUT:
            element = ((batch_offset + b) * domains + domain) * subs + i
            word = philox.word(tl.load(seed), element, DROPOUT_STREAM)
            score = tl.where(word.to(tl.int64) >= threshold, score, 0.0)
        best = tl.argmax(tl.where(i < subs, score, float("-inf")), axis=0, tie_break_left=True)
        chosen = tl.where(c == domain, tl.minimum(best, subs - 1).to(tl.int64), chosen)
    tl.store(selected + b * domains + c, chosen, mask=c < domains)

    # Eq. 3 and 7 against the label's selected Gaussian.
    own_center = own * subs + tl.sum(tl.where(c == own, chosen, 0), axis=0)
    center = tl.load(centers + own_center * dim + j, mask=here, other=0.0).to(tl.float32)
    prior = tl.load(prior_logvar + own * dim + j, mask=here, other=0.0).to(tl.float32)
    distance = center - mean
    _, excess = _exp_minus_1(spread - prior)
    term = excess + distance * distance * _exp(-prior)
    undefined = tl.where(valid, 0.0, float("nan"))
    tl.store(kl + b, 0.5 * tl.sum(tl.where(here, term, 0.0), axis=0) + undefined)
    log_det = tl.sum(prior.to(tl.float64), axis=0)  # its summands cancel
    tl.store(logdet2 + b, (log_det * log_det).to(tl.float32) + undefined)

    # Eq. 6 for every sample, against the selected centres of all domains.
    deviation = _exp(0.5 * spread)
    total = 0.0
    for n in range(samples):
        sample = mean + deviation * _noise(seed, eps, b, n, j, here, batch, dim, samples, batch_offset)
        tl.store(z + (n * batch + b) * dim + j, sample.to(z.dtype.element_ty), mask=here)
        logits = tl.full([BLOCK_C], float("-inf"), tl.float32)
        for domain in range(domains):
            index = domain * subs + tl.sum(tl.where(c == domain, chosen, 0), axis=0)
            center = tl.load(centers + index * dim + j, mask=here, other=0.0).to(tl.float32)
            logits = tl.where(c == domain, tl.sum(tl.where(here, sample * center, 0.0), axis=0), logits)
        largest = tl.max(logits, axis=0)
        weight = tl.where(c < domains, _exp(tl.where(c < domains, logits - largest, 0.0)), 0.0)
        mass = tl.sum(weight, axis=0)
        tl.store(probabilities + (n * batch + b) * domains + c, weight / mass + undefined, mask=c < domains)
        total += tl.log(mass) + (largest - tl.sum(tl.where(c == own, logits, 0.0), axis=0))
    tl.store(lse + b, total / samples + undefined)


@triton.jit
def backward_images_kernel(
    dz,  # [N, B, d]
    dkl,  # [B] float32, as dlse
    dlse,
    mu,
    logvar,
    centers,
    prior_logvar,
    labels,
    seed,
    eps,
    selected,
    probabilities,
    dmu,  # out [B, d]
    dlogvar,  # out [B, d]
    z,  # out [N, B, d] float32, for the parameters' kernel: not rounded to the storage type
    batch,
    dim,
    domains,
    subs,
    samples,
    batch_offset,
    BLOCK_D: tl.constexpr,
):
    b = tl.program_id(0).to(tl.int64)
    j = tl.arange(0, BLOCK_D)
    here = j < dim
    mean = tl.load(mu + b * dim + j, mask=here, other=0.0).to(tl.float32)
    spread = tl.load(logvar + b * dim + j, mask=here, other=0.0).to(tl.float32)
    label = tl.load(labels + b)
    valid = (label >= 0) & (label < domains)
    own = tl.where(valid, label, 0)
    own_center = own * subs + tl.load(selected + b * domains + own)
    center = tl.load(centers + own_center * dim + j, mask=here, other=0.0).to(tl.float32)
    prior = tl.load(prior_logvar + own * dim + j, mask=here, other=0.0).to(tl.float32)
    from_kl = tl.load(dkl + b)
    from_lse = tl.load(dlse + b) / samples

    mean_grad = from_kl * (mean - center) * _exp(-prior)
    growth, _ = _exp_minus_1(spread - prior)
    spread_grad = 0.5 * from_kl * growth
    deviation = _exp(0.5 * spread)
    for n in range(samples):
        noise = _noise(seed, eps, b, n, j, here, batch, dim, samples, batch_offset)
        tl.store(z + (n * batch + b) * dim + j, mean + deviation * noise, mask=here)
        pull = -center
        for domain in range(domains):
            index = domain * subs + tl.load(selected + b * domains + domain)
            other = tl.load(centers + index * dim + j, mask=here, other=0.0).to(tl.float32)
            pull += tl.load(probabilities + (n * batch + b) * domains + domain) * other
        grad = tl.load(dz + (n * batch + b) * dim + j, mask=here, other=0.0).to(tl.float32) + from_lse * pull
        mean_grad += grad
        spread_grad += 0.5 * grad * noise * deviation
    undefined = tl.where(valid, 0.0, float("nan"))
    tl.store(dmu + b * dim + j, (mean_grad + undefined).to(dmu.dtype.element_ty), mask=here)
    tl.store(dlogvar + b * dim + j, (spread_grad + undefined).to(dlogvar.dtype.element_ty), mask=here)


@triton.jit
def backward_parameters_kernel(
    dkl,  # [B] float32, as dlse and dlogdet2
    dlse,
    dlogdet2,
    mu,
    logvar,
    centers,
    prior_logvar,
    labels,
    selected,
    probabilities,
    z,  # [N, B, d] float32
    dcenters,  # out [C, k, d]
    dprior_logvar,  # out [C, d]
    batch,
    dim,
    domains,
    subs,
    samples,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """One domain and COLUMNS latent coordinates per program, which adds the images up in their order: no atomics."""
    domain = tl.program_id(0).to(tl.int64)
    j = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    here = j < dim
    prior = tl.load(prior_logvar + domain * dim + j, mask=here, other=0.0).to(tl.float32)
    precision = _exp(-prior)
    parts = tl.zeros([COLUMNS], tl.float64)
    for start in range(0, dim, COLUMNS):
        step = start + tl.arange(0, COLUMNS)
        parts += tl.load(prior_logvar + domain * dim + step, mask=step < dim, other=0.0).to(tl.float64)
    log_det = tl.sum(parts, axis=0).to(tl.float32)

    prior_grad = tl.zeros([COLUMNS], tl.float32)
    for sub in range(subs):
        center = tl.load(centers + (domain * subs + sub) * dim + j, mask=here, other=0.0).to(tl.float32)
        center_grad = tl.zeros([COLUMNS], tl.float32)
        for start in range(0, batch, ROWS):
            b = start + tl.arange(0, ROWS).to(tl.int64)
            label = tl.load(labels + b, mask=b < batch, other=-1)
            choice = tl.load(selected + b * domains + domain, mask=b < batch, other=-1)
            valid = (label >= 0) & (label < domains)  # other images add nothing
            mine = valid & (choice == sub)
            own = mine & (label == domain)
            tile = b[:, None] * dim + j[None, :]
            inside = own[:, None] & here[None, :]
            mean = tl.load(mu + tile, mask=inside, other=0.0).to(tl.float32)
            spread = tl.load(logvar + tile, mask=inside, other=0.0).to(tl.float32)
            from_kl = tl.load(dkl + b, mask=own, other=0.0)[:, None]
            distance = center[None, :] - mean
            pull = from_kl * distance * precision[None, :]
            center_grad += tl.sum(tl.where(inside, pull, 0.0), axis=0)
            growth, _ = _exp_minus_1(spread - prior[None, :])
            term = -0.5 * (from_kl * growth + pull * distance)
            prior_grad += tl.sum(tl.where(inside, term, 0.0), axis=0)
            prior_grad += 2.0 * log_det * tl.sum(tl.load(dlogdet2 + b, mask=own, other=0.0), axis=0)
            from_lse = tl.load(dlse + b, mask=mine, other=0.0) / samples
            for n in range(samples):
                p = tl.load(probabilities + (n * batch + b) * domains + domain, mask=mine, other=0.0)
                share = from_lse * tl.where(own, p - 1.0, p)
                sample = tl.load(
                    z + (n * batch + b)[:, None] * dim + j[None, :], mask=mine[:, None] & here[None, :], other=0.0
                )
                center_grad += tl.sum(tl.where(mine[:, None], share[:, None] * sample, 0.0), axis=0)
        tl.store(dcenters + (domain * subs + sub) * dim + j, center_grad.to(dcenters.dtype.element_ty), mask=here)
    tl.store(dprior_logvar + domain * dim + j, prior_grad.to(dprior_logvar.dtype.element_ty), mask=here)


def _num_warps(elements: int) -> int:
    """At most 32 float32 of the widest tile per thread."""
    return min(max(triton.next_power_of_2(elements // 1024), 1), 16)


@device_guard
def forward(
    mu, logvar, centers, prior_logvar, labels, seed, eps, num_samples: int, dropout: float, batch_offset: int
) -> tuple[Tensor, ...]:
    """(z, kl, lse, logdet2, selected, probabilities); see `dkpnet_ext/ops/variational.py`."""
    batch, dim = mu.shape
    domains, subs, _ = centers.shape
    kl, lse, logdet2 = (mu.new_empty(batch, dtype=torch.float32) for _ in range(3))
    selected = mu.new_empty((batch, domains), dtype=torch.int64)
    probabilities = mu.new_empty((num_samples, batch, domains), dtype=torch.float32)
    out = mu.new_empty((num_samples, batch, dim)), kl, lse, logdet2, selected, probabilities
    block_k, block_d = triton.next_power_of_2(subs), triton.next_power_of_2(dim)
    if batch > 0:
        forward_kernel[(batch,)](
            mu, logvar, centers, prior_logvar, labels, seed, eps, *out, batch, dim, domains, subs, num_samples, batch_offset,
            int(dropout * 2**32), dropout > 0 and subs > 1, triton.next_power_of_2(domains), block_k, block_d,
            num_warps=_num_warps(block_k * block_d),
        )  # fmt: skip
    return out


@device_guard
def backward(
    dz, dkl, dlse, dlogdet2, mu, logvar, centers, prior_logvar, labels, seed, eps, selected, probabilities, batch_offset: int
) -> tuple[Tensor, ...]:  # fmt: skip
    """(dmu, dlogvar, dcenters, dprior_logvar); see `dkpnet_ext/ops/variational.py`."""
    batch, dim = mu.shape
    domains, subs, _ = centers.shape
    samples = len(dz)
    dmu, dlogvar = torch.empty_like(mu), torch.empty_like(logvar)
    dcenters, dprior_logvar = torch.empty_like(centers), torch.empty_like(prior_logvar)
    z = torch.empty(samples, batch, dim, dtype=torch.float32, device=mu.device)
    block_d = triton.next_power_of_2(dim)
    if batch > 0:
        backward_images_kernel[(batch,)](
            dz, dkl, dlse, mu, logvar, centers, prior_logvar, labels, seed, eps, selected, probabilities,
            dmu, dlogvar, z, batch, dim, domains, subs, samples, batch_offset, block_d, num_warps=_num_warps(block_d),
        )  # fmt: skip
    backward_parameters_kernel[(domains, triton.cdiv(dim, COLUMNS))](
        dkl, dlse, dlogdet2, mu, logvar, centers, prior_logvar, labels, selected, probabilities, z,
        dcenters, dprior_logvar, batch, dim, domains, subs, samples, ROWS, COLUMNS,
    )  # fmt: skip
    return dmu, dlogvar, dcenters, dprior_logvar
