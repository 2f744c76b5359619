"""Fused operators. Interim wrappers over the reference: each stem's module replaces its own line."""

from typing import NamedTuple

import torch
from torch import Tensor

from . import reference
from .reference import attended_head, pooled_features, reweight


class VariationalOutput(NamedTuple):
    z: Tensor
    kl: Tensor
    lse: Tensor
    logdet2: Tensor
    selected: Tensor


def variational(mu, logvar, centers, prior_logvar, labels, *, seed=None, eps=None, num_samples=1, dropout=0.0, first=0):
    if seed is None and (eps is None or dropout > 0):
        seed = torch.randint(0, 2**63 - 1, (1,), device=mu.device)
    return VariationalOutput(
        *reference.variational(
            mu, logvar, centers, prior_logvar, labels,
            seed=seed, eps=eps, num_samples=num_samples, dropout=dropout, first=first,
        )
    )


def density(points, offsets, size, *, stride=4, sigma=4.0, truncate=1.75):
    return reference.density(points, offsets, size, stride=stride, sigma=sigma, truncate=truncate)
