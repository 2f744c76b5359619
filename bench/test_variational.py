"""Sampling and its regularisers, forward and backward, against eager PyTorch and torch.compile."""

from __future__ import annotations

from functools import partial

import baselines
import torch
from measure import backends, both_errors

from dkpnet_ext.ops import use_backend, variational

B, D, C, K, DROPOUT = 32, 128, 5, 2, 0.2


def make(device: str, explicit_noise: bool) -> tuple:
    """Leaves, labels, noise and dropout (drawn inside and 0.2 for the clock, given and 0 for the comparison), upstream."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape, scale=1.0):
        return (torch.randn(shape, generator=generator) * scale).to(device)

    leaves = [draw(B, D), draw(B, D), draw(C, K, D, scale=D**-0.5), draw(C, D, scale=0.3)]
    labels = torch.randint(C, (B,), generator=generator).to(device)
    eps = draw(B, D) if explicit_noise else None
    upstream = [draw(B, D), draw(B), draw(B), draw(B)]
    return *(t.requires_grad_() for t in leaves), labels, eps, 0.0 if explicit_noise else DROPOUT, *upstream


def both_ways(sample):
    """Outputs and gradients; ours z is [N, B, d] with N = 1."""

    def run(mu, logvar, centers, prior_logvar, labels, eps, dropout, *upstream):
        leaves = (mu, logvar, centers, prior_logvar)
        outputs = sample(*leaves, labels, eps, dropout)
        upstream = [u.view_as(o) for u, o in zip(upstream, outputs, strict=True)]
        return *outputs, *torch.autograd.grad(outputs, leaves, upstream)

    return run


def ours(backend: str):
    def sample(mu, logvar, centers, prior_logvar, labels, eps, dropout):
        with use_backend(backend):
            eps = None if eps is None else eps[None]
            return variational(mu, logvar, centers, prior_logvar, labels, eps=eps, dropout=dropout)[:4]

    return both_ways(sample)


def wide(values: tuple) -> list:
    """The same in float64."""
    return [
        t.detach().double().requires_grad_(t.requires_grad) if torch.is_tensor(t) and t.is_floating_point() else t
        for t in values
    ]


def test_variational(compare, device, tiny):
    functions = {name: ours(name) for name in backends(device)}
    plain = {"eager": both_ways(baselines.variational)}
    if not tiny:
        plain["torch.compile"] = both_ways(torch.compile(baselines.variational, dynamic=False))
    exact, timed = make(device, explicit_noise=True), make(device, explicit_noise=False)
    truth = both_ways(baselines.variational)(*wide(exact))
    if device == "cuda":
        aims = [("cuda", "eager", 10), ("cuda", "torch.compile", 2)]
    else:
        aims = [("cpp", "eager", 3)]
    compare(
        "variational, forward + backward",
        f"B={B}, d={D}, C={C}, k={K}, dropout {DROPOUT}, noise drawn inside, float32",
        {name: partial(function, *timed) for name, function in functions.items()},
        {name: partial(function, *timed) for name, function in plain.items()},
        device=device,
        columns={name: both_errors(run(*exact), truth, 4) for name, run in (functions | plain).items()},
        aims=aims,
        rounds=31,
    )
