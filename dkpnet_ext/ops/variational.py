"""Sampling and its three regularisers in one launch each way: z, KL, log-sum-exp, log^2 det, centre selection.

Every backend (this file's native calls, `ops/triton/variational.py`) has

    forward(mu, logvar, centers, prior_logvar, labels, seed, eps, num_samples, dropout, batch_offset)
        -> (z, kl, lse, logdet2, selected, probabilities)
    backward(dz, dkl, dlse, dlogdet2, mu, logvar, centers, prior_logvar, labels, seed, eps, selected, probabilities, batch_offset)
        -> (dmu, dlogvar, dcenters, dprior_logvar)

All tensors contiguous. mu, logvar [B, d], centers [C, k, d], prior_logvar [C, d] and eps [N, B, d] (or None: Philox
noise of `seed`) share one dtype, as do z [N, B, d], dz and the four gradients; labels [B] int64; seed [1] int64 on the
same device, or None where neither noise nor dropout needs it. "Wide" is float64 for float64, else float32: kl, lse,
logdet2 [B], their upstream gradients and probabilities [N, B, C] (softmax of the logits z . u_c) are wide. selected
[B, C] int64. Noise and dropout follow the Philox mapping of `ops/philox.py` with elements
((batch_offset + b) * N + n) * d + j and ((batch_offset + b) * C + c) * k + i. B may be 0. An image
whose label is outside [0, C) has NaN in kl, lse, logdet2, probabilities, dmu and dlogvar;
it adds nothing to dcenters and dprior_logvar.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from . import native, reference, triton
from .backend import check_tensor, choose, forbid_double_backward, register_autograd, require_kernel, wide_dtype

_library = torch.library.Library("dkpnet", "FRAGMENT")
_library.define(
    "variational(Tensor mu, Tensor logvar, Tensor centers, Tensor prior_logvar, Tensor labels, Tensor? seed,"
    " Tensor? eps, int num_samples, float dropout, SymInt batch_offset, str backend)"
    " -> (Tensor z, Tensor kl, Tensor lse, Tensor logdet2, Tensor selected, Tensor probabilities)"
)
_library.define(
    "variational_backward(Tensor? dz, Tensor? dkl, Tensor? dlse, Tensor? dlogdet2, Tensor mu, Tensor logvar,"
    " Tensor centers, Tensor prior_logvar, Tensor labels, Tensor? seed, Tensor? eps, Tensor selected,"
    " Tensor probabilities, SymInt batch_offset, str backend)"
    " -> (Tensor dmu, Tensor dlogvar, Tensor dcenters, Tensor dprior_logvar)"
)


class VariationalOutput(NamedTuple):
    """z [N, B, d] in mu's dtype; kl, lse, logdet2 [B] float32 (float64 for float64); selected [B, C] int64."""

    z: Tensor
    kl: Tensor
    lse: Tensor
    logdet2: Tensor
    selected: Tensor


def variational(
    mu: Tensor,
    logvar: Tensor,
    centers: Tensor,
    prior_logvar: Tensor,
    labels: Tensor,
    *,
    seed: Tensor | None = None,
    eps: Tensor | None = None,
    num_samples: int = 1,
    dropout: float = 0.0,
    batch_offset: int = 0,
) -> VariationalOutput:
    """Latent samples and their three regularisers, per image (Eq. 3, 6, 7 and 8 of the DKPNet paper).

    z = mu + exp(logvar / 2) * noise; KL (Eq. 3) against the Gaussian of the image's own domain; the log-sum-exp
    regulariser (Eq. 6) over all domains' selected centres, averaged over the samples; the squared log-determinant of
    the own prior (Eq. 7, 9). In every domain the sub-component whose centre agrees most with mu is selected (Eq. 8),
    ties take the lowest index; gradients flow into selected centres only. Differentiable with respect to mu, logvar,
    centers and prior_logvar, once; twice under ``use_backend("reference")``. Computed in float32 (float64 for
    float64), under autocast in float32 from end to end.

    Args:
        mu, logvar: [B, d], one floating dtype for them and the parameters (float32, bfloat16, float16, float64).
        centers: [C, k, d], the prior means.
        prior_logvar: [C, d], log of the prior variances.
        labels: [B] int64 in [0, C). An image with another label has NaN for its kl, lse and logdet2 and for the gradients
            of its mu and logvar; the parameters' gradients are those of the other images.
        seed: [1] int64 on mu's device, the noise's and the dropout's; drawn from PyTorch's default generator if None.
        eps: [N, B, d] noise to use instead; no gradient flows into it.
        num_samples: N, where eps is not given.
        dropout: probability of zeroing a score before the selection, for k > 1; those kept are scaled by 1/(1-p).
        batch_offset: index of this process' first image in the global batch: DDP ranks then draw what one process would.

    Raises:
        ValueError, TypeError: shapes, devices or dtypes that do not fit; on the CPU (on CUDA looking would stall the
            stream) NaN in mu, logvar, centers or prior_logvar.
    """
    if torch.is_autocast_enabled(mu.device.type):
        mu, logvar, centers, prior_logvar = (_autocast(t) for t in (mu, logvar, centers, prior_logvar))
        eps = None if eps is None else _autocast(eps)
    _check(mu, logvar, centers, prior_logvar, labels, seed, eps, num_samples, dropout)
    if eps is not None:
        num_samples = eps.shape[0]
        eps = eps.detach().to(mu.dtype)
    if seed is None and (eps is None or (dropout > 0 and centers.shape[1] > 1)):
        seed = torch.randint(torch.iinfo(torch.int64).max, (1,), device=mu.device)
    backend = choose("variational", mu.device, mu.dtype, partial(_limit, mu.shape[1], centers.shape[0]))
    if backend == "reference":
        if mu.device.type == "cpu" and not torch.compiler.is_compiling():  # as the compiled code does as it goes
            for name, t in (("mu", mu), ("logvar", logvar), ("centers", centers), ("prior_logvar", prior_logvar)):
                if t.isnan().any():
                    raise ValueError(f"variational: {name} contains NaN")
        with torch.autocast(mu.device.type, enabled=False):
            out = reference.variational(
                mu, logvar, centers, prior_logvar, labels,
                seed=seed, eps=eps, num_samples=num_samples, dropout=dropout, batch_offset=batch_offset,
            )  # fmt: skip
        return VariationalOutput(*out)
    out = torch.ops.dkpnet.variational.default(
        mu, logvar, centers, prior_logvar, labels, seed, eps, num_samples, dropout, batch_offset, backend
    )
    return VariationalOutput(*out[:5])


def _autocast(t: Tensor) -> Tensor:
    return t.float() if t.dtype in (torch.bfloat16, torch.float16) else t


def _check(mu, logvar, centers, prior_logvar, labels, seed, eps, num_samples, dropout) -> None:
    if mu.dim() != 2 or centers.dim() != 3 or mu.shape[1] != centers.shape[2] or 0 in (*centers.shape, mu.shape[1]):
        raise ValueError(
            f"variational: needs mu [B, d] and centers [C, k, d] with C, k, d >= 1, "
            f"got {list(mu.shape)} and {list(centers.shape)}"
        )
    if mu.dtype not in native.DTYPES:
        raise TypeError(f"variational: mu must be float32, bfloat16, float16 or float64, got {mu.dtype}")
    (batch, dim), domains = mu.shape, centers.shape[0]
    expected = [
        ("logvar", logvar, (batch, dim), mu.dtype), ("centers", centers, centers.shape, mu.dtype),
        ("prior_logvar", prior_logvar, (domains, dim), mu.dtype), ("labels", labels, (batch,), torch.int64),
    ]  # fmt: skip
    if seed is not None:
        expected.append(("seed", seed, seed.shape if seed.numel() == 1 else (1,), torch.int64))
    for name, t, shape, dtype in expected:
        check_tensor("variational", name, t, shape, dtype, mu.device)
    if eps is not None:
        if eps.dim() != 3 or eps.shape[1:] != mu.shape or eps.shape[0] < 1:
            raise ValueError(f"variational: eps must be [N, B, d] with B, d = {list(mu.shape)}, got {list(eps.shape)}")
        if eps.device != mu.device:
            raise ValueError(f"variational: eps is on {eps.device}, mu on {mu.device}")
    elif num_samples < 1:
        raise ValueError(f"variational: num_samples must be at least 1, got {num_samples}")
    if not 0.0 <= dropout < 1.0:
        raise ValueError(f"variational: dropout must be in [0, 1), got {dropout}")


def _limit(dim: int, domains: int, backend: str) -> str | None:
    if backend == "cuda" and (dim > 2048 or domains > 1024):
        return f"its kernels have d <= 2048 and C <= 1024, not {dim} and {domains}"  # csrc/cuda/variational.cu
    return None


def _check_kernel(
    mu, logvar, centers, prior_logvar, labels, seed, eps, num_samples, dropout, backend, **upstream: Tensor
) -> None:  # fmt: skip
    """What the raw operators promise their kernels; ``upstream`` is the backward pass' tensors by name."""
    _check(mu, logvar, centers, prior_logvar, labels, seed, eps, num_samples, dropout)
    (batch, dim), (domains, subs, _), wide = mu.shape, centers.shape, wide_dtype(mu.dtype)
    if eps is not None and (eps.shape[0] != num_samples or eps.dtype != mu.dtype):
        raise ValueError(
            f"variational: eps must be {mu.dtype} of {num_samples} samples, got {eps.dtype} of {eps.shape[0]}"
        )
    if seed is None and (eps is None or (dropout > 0 and subs > 1)):
        raise ValueError("variational: a seed is needed, for the noise (where there is no eps) and for dropout")
    expected = {
        "dz": ((num_samples, batch, dim), mu.dtype), "dkl": ((batch,), wide), "dlse": ((batch,), wide),
        "dlogdet2": ((batch,), wide), "selected": ((batch, domains), torch.int64),
        "probabilities": ((num_samples, batch, domains), wide),
    }  # fmt: skip
    for name, t in upstream.items():
        check_tensor("variational", name, t, *expected[name], mu.device)
    require_kernel(backend, "variational", mu.device, mu.dtype, partial(_limit, dim, domains))


def _problem(mu, logvar, centers, prior_logvar, labels, seed, eps, num_samples, batch_offset) -> dict[str, Any]:
    return {
        "batch": mu.shape[0], "dim": mu.shape[1], "domains": centers.shape[0], "subs": centers.shape[1],
        "samples": num_samples, "batch_offset": batch_offset, "dtype": mu.dtype, "mu": mu, "logvar": logvar,
        "centers": centers, "prior_logvar": prior_logvar, "labels": labels, "seed": seed, "eps": eps,
    }  # fmt: skip


@torch.library.impl("dkpnet::variational", ("cpu", "cuda"), lib=_library)
def _forward(mu, logvar, centers, prior_logvar, labels, seed, eps, num_samples, dropout, batch_offset, backend):
    _check_kernel(mu, logvar, centers, prior_logvar, labels, seed, eps, num_samples, dropout, backend)
    inputs = _contiguous(mu, logvar, centers, prior_logvar, labels, seed, eps)
    if backend == "triton":
        return triton.kernels("variational").forward(*inputs, num_samples, dropout, batch_offset)
    out = _empty_outputs(mu, centers, num_samples)
    results = dict(zip(("z", "kl", "lse", "logdet2", "selected", "probabilities"), out, strict=True))
    native.run("variational_forward", mu, **_problem(*inputs, num_samples, batch_offset), dropout=dropout, **results)
    return out


def _empty_outputs(mu: Tensor, centers: Tensor, num_samples: int) -> tuple[Tensor, ...]:
    (batch, dim), domains, wide = mu.shape, centers.shape[0], wide_dtype(mu.dtype)
    kl, lse, logdet2 = (mu.new_empty(batch, dtype=wide) for _ in range(3))
    return (
        mu.new_empty((num_samples, batch, dim)), kl, lse, logdet2,
        mu.new_empty((batch, domains), dtype=torch.int64),
        mu.new_empty((num_samples, batch, domains), dtype=wide),
    )  # fmt: skip


@torch.library.impl("dkpnet::variational_backward", ("cpu", "cuda"), lib=_library)
def _backward(
    dz, dkl, dlse, dlogdet2, mu, logvar, centers, prior_logvar, labels, seed, eps, selected, probabilities, batch_offset, backend
):  # fmt: skip
    num_samples, wide = len(probabilities), wide_dtype(mu.dtype)
    dz = mu.new_zeros((num_samples, *mu.shape)) if dz is None else dz
    dkl, dlse, dlogdet2 = (mu.new_zeros(len(mu), dtype=wide) if t is None else t for t in (dkl, dlse, dlogdet2))
    upstream = {
        "dz": dz, "dkl": dkl, "dlse": dlse, "dlogdet2": dlogdet2, "selected": selected, "probabilities": probabilities,
    }  # fmt: skip
    inputs = mu, logvar, centers, prior_logvar, labels, seed, eps
    _check_kernel(*inputs, num_samples, 0.0, backend, **upstream)
    inputs, upstream = _contiguous(*inputs), dict(zip(upstream, _contiguous(*upstream.values()), strict=True))
    if backend == "triton":
        *grads, selected, probabilities = upstream.values()
        return triton.kernels("variational").backward(*grads, *inputs, selected, probabilities, batch_offset)
    out = tuple(torch.empty_like(t) for t in inputs[:4])
    results = dict(zip(("dmu", "dlogvar", "dcenters", "dprior_logvar"), out, strict=True))
    workspace = mu.new_empty((num_samples, *mu.shape), dtype=wide)
    native.run(
        "variational_backward", mu, **_problem(*inputs, num_samples, batch_offset), **upstream, workspace=workspace,
        **results,
    )  # fmt: skip
    return out


def _contiguous(*tensors: Tensor | None) -> tuple[Tensor | None, ...]:
    return tuple(None if t is None else t.contiguous() for t in tensors)


@torch.library.register_fake("dkpnet::variational", lib=_library)
def _(mu, logvar, centers, prior_logvar, labels, seed, eps, num_samples, dropout, batch_offset, backend):
    return _empty_outputs(mu, centers, num_samples)


@torch.library.register_fake("dkpnet::variational_backward", lib=_library)
def _(
    dz, dkl, dlse, dlogdet2, mu, logvar, centers, prior_logvar, labels, seed, eps, selected, probabilities, batch_offset, backend
):  # fmt: skip
    return tuple(t.new_empty(t.shape) for t in (mu, logvar, centers, prior_logvar))


def _setup(ctx, inputs, output) -> None:
    *tensors, _, _, batch_offset, backend = inputs
    ctx.save_for_backward(*tensors, output[4], output[5])
    ctx.batch_offset, ctx.backend = batch_offset, backend
    ctx.mark_non_differentiable(output[4], output[5])
    ctx.set_materialize_grads(False)


def _grad(ctx, dz, dkl, dlse, dlogdet2, _selected, _probabilities):
    grads = torch.ops.dkpnet.variational_backward.default(
        dz, dkl, dlse, dlogdet2, *ctx.saved_tensors, ctx.batch_offset, ctx.backend
    )
    return *grads, *(None,) * 7


register_autograd(_library, "variational", _grad, _setup)
forbid_double_backward(_library, "variational_backward")
# Eq. 3 to 9 take exponentials: never in half precision under autocast.
for _device in ("cpu", "cuda"):
    torch.library.register_autocast("dkpnet::variational", _device, torch.float32, lib=_library)
