"""Eq. 9: what a training step minimises."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ..models import CounterOutput
from .config import LossConfig


def loss_terms(
    output: CounterOutput, target: Tensor, labels: Tensor, scale: float, config: LossConfig
) -> dict[str, Tensor]:
    """The weighted terms of Eq. 9, scalars, with their sum as ``total``.

    Args:
        output: of the model, with labels given.
        target: [B, 1, h, w] heads per cell; labels: int64 [B].
        scale: the model's density_scale; the density term is 1/(2B) sum (scale * error)^2.
    """
    samples = output.density.shape[0] // target.shape[0]
    error = (output.density.float() - target.repeat(samples, 1, 1, 1)) * scale
    terms = {"density": config.w_density * error.square().sum() / (2 * error.shape[0])}
    if output.kl is not None and output.lse is not None and output.logdet2 is not None:
        terms["kl"] = config.w_kl * output.kl.mean()
        terms["lse"] = config.w_lse * output.lse.mean()
        terms["logdet2"] = config.w_logdet * output.logdet2.mean()
    if output.domain_logits is not None:
        terms["classifier"] = F.cross_entropy(output.domain_logits.float(), labels)
    terms["total"] = torch.stack(list(terms.values())).sum()
    return terms
