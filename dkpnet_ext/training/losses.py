"""Eq. 9: what a training step minimises."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ..models import CounterOutput
from .config import LossConfig

BLOCKS = (8, 16, 32)  # pixels


def loss_terms(
    output: CounterOutput, target: Tensor, labels: Tensor, scale: float, config: LossConfig, stride: int = 4
) -> dict[str, Tensor]:
    """The weighted terms of Eq. 9, scalars, with their sum as ``total``.

    Args:
        output: of the model, with labels given.
        target: [B, 1, h, w] heads per cell, blurred for ``mse``, exact for ``poisson``; labels: int64 [B].
        scale: the model's density_scale; the density term of ``mse`` is 1/(2B) sum (scale * error)^2.
        stride: pixels per cell.
    """
    samples = output.density.shape[0] // target.shape[0]
    density, target = output.density.float(), target.repeat(samples, 1, 1, 1)
    if config.loss == "poisson":
        term = poisson_loss(density, target, stride)
    else:
        term = ((density - target) * scale).square().sum() / (2 * density.shape[0])
    terms = {"density": config.w_density * term}
    if output.kl is not None and output.lse is not None and output.logdet2 is not None:
        terms["kl"] = config.w_kl * output.kl.mean()
        terms["lse"] = config.w_lse * output.lse.mean()
        terms["logdet2"] = config.w_logdet * output.logdet2.mean()
    if output.domain_logits is not None:
        terms["classifier"] = F.cross_entropy(output.domain_logits.float(), labels)
    terms["total"] = torch.stack(list(terms.values())).sum()
    return terms


def poisson_loss(density: Tensor, counts: Tensor, stride: int) -> Tensor:
    """Negative log-likelihood of Poisson counts, sum over blocks of rate - count log rate, mean over images and block sizes.

    Counts are compared in blocks of 8, 16 and 32 pixels: the small ones say where heads are, the large ones forgive a head
    that lies a few pixels from its point. No Gaussian and so no sigma is needed, and an error weighs relative to what
    was expected: an empty street teaches as much as a full one.

    Args:
        density: [B, 1, h, w] expected heads per cell, positive; counts: the same shape, heads; stride: pixels per cell.
    """
    terms = []
    for side in BLOCKS:
        cells = max(side // stride, 1)
        rate, count = (F.avg_pool2d(x, cells, ceil_mode=True, divisor_override=1) for x in (density, counts))
        terms.append(F.poisson_nll_loss(rate, count, log_input=False, reduction="sum") / len(rate))
    return torch.stack(terms).mean()


def count_cells(points: Tensor, offsets: Tensor, size: tuple[int, int], stride: int) -> Tensor:
    """Heads per cell, exact: float32 [B, 1, ceil(H / stride), ceil(W / stride)]. Points outside count nowhere.

    Args:
        points: [M, 2] (x, y) in pixels; offsets: int64 [B + 1]; size: (H, W) in pixels.
    """
    height, width = (-(-side // stride) for side in size)
    images = len(offsets) - 1
    owner = torch.repeat_interleave(torch.arange(images, device=points.device), offsets.diff())
    column, row = (points / stride).floor().long().unbind(1)
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    cell = ((owner * height + row) * width + column)[inside]
    return torch.bincount(cell, minlength=images * height * width).view(images, 1, height, width).float()
