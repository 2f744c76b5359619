"""What a training step minimises: Eq. 9, whose density term is one of six losses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from .. import ops
from ..models import CounterOutput
from ..models.network import Link
from ..models.zero_inflated import bin_of, zero_inflated
from .config import LossConfig

LINKS: Mapping[str, Link] = {
    "mse": "relu",
    "poisson": "exp",
    "zip": "zip",
    "bayesian": "abs",
    "dm": "relu",
    "ssim": "relu",
}
"""From the network's output to a density, by loss."""

BLOCKS = (8, 16, 32)  # pixels
_DILATIONS = {1: 0.0448, 2: 0.2856, 3: 0.3001, 6: 0.2363, 9: 0.1333}  # of SSIM, with their exponents
_C1, _C2 = 2.55**2, 7.65**2
_SCALES = ((1, 0.25), (2, 0.5), (4, 1.0))  # of ZIP: cells a side, weight


class Annotation(NamedTuple):
    """The annotated people of a batch of crops."""

    points: Tensor  # float32 [M, 2], (x, y) in pixels, image after image
    offsets: Tensor  # int64 [B + 1]: image b has points[offsets[b] : offsets[b + 1]]
    sides: Tensor  # float32 [B], pixels of the crop: the shortest side of the picture that a crop was cut from
    size: tuple[int, int]  # (H, W) of the crops in pixels
    stride: int  # pixels per density cell
    targets: Tensor | None = None  # float32 [M], of ``bayesian``: what is expected of each point; None: 1

    def per_cell(self) -> Tensor:
        """Annotation per cell, exact: float32 [B, 1, h, w]."""
        return count_cells(self.points, self.offsets, self.size, self.stride)


def loss_terms(output: CounterOutput, loss: Tensor, labels: Tensor, config: LossConfig) -> dict[str, Tensor]:
    """The weighted terms of Eq. 9, scalars, with their sum as ``total``.

    Args:
        output: of the model, with labels given; loss: `density_loss`; labels: int64 [B].
    """
    terms = {"density": config.w_density * loss}
    if output.kl is not None and output.lse is not None and output.logdet2 is not None:
        terms["kl"] = config.w_kl * output.kl.mean()
        terms["lse"] = config.w_lse * output.lse.mean()
        terms["logdet2"] = config.w_logdet * output.logdet2.mean()
    if output.domain_logits is not None:
        terms["classifier"] = F.cross_entropy(output.domain_logits.float(), labels)
    terms["total"] = torch.stack(list(terms.values())).sum()
    return terms


def density_loss(output: CounterOutput, people: Annotation, config: LossConfig, scale: float, images: int) -> Tensor:
    """The loss that ``config.loss`` names, a scalar: mean over the images and their latent samples.

    Args:
        output: density [N * B, 1, h, w] of N latent samples per image; ``cells`` for ``zip``.
        scale: the model's density_scale, of ``mse`` and ``zip``.
        images: of an optimiser step, of which this batch may be a part; ``dm`` sums one of its terms over them.
    """
    batch = len(people.sides)
    samples = output.density.float().split(batch)
    if config.loss == "bayesian":
        settings: dict[str, Any] = {
            "targets": people.targets,
            "stride": people.stride,
            "form": config.bayesian_form,
        }
        each = [
            ops.bayesian(density, people.points, people.offsets, people.sides, **settings).mean() for density in samples
        ]
    elif config.loss == "dm":
        counts = people.per_cell()
        each = [dm_loss(density, counts, people, images) for density in samples]
    elif config.loss == "zip":
        assert output.cells is not None
        counts = people.per_cell() * scale  # of a counter that has a factor; else 1
        each = [zip_loss(cells, counts) for cells in output.cells.split(batch)]
    elif config.loss == "poisson":
        counts = people.per_cell()
        each = [poisson_loss(density, counts, people.stride, config.dispersion) for density in samples]
    else:
        sigma = config.sigma or ops.knn_sigma(people.points, people.offsets)
        target = ops.density(people.points, people.offsets, people.size, stride=people.stride, sigma=sigma)
        if config.loss == "ssim":
            each = [ssim_loss(density, target) for density in samples]
        else:
            each = [((density - target) * scale).square().sum() / (2 * batch) for density in samples]
    return torch.stack(each).mean()


def poisson_loss(density: Tensor, counts: Tensor, stride: int, dispersion: float = 0.0) -> Tensor:
    """Negative log-likelihood of Poisson counts, sum over blocks of rate - count log rate, mean over images and block sizes.

    Counts are compared in blocks of 8, 16 and 32 pixels: the small ones say where heads are, the large ones forgive a head
    that lies a few pixels from its point. No Gaussian and so no sigma is needed, and an error weighs relative to what
    was expected: an empty street teaches as much as a full one.

    Args:
        density: [B, 1, h, w] expected heads per cell, positive; counts: the same shape, heads; stride: pixels per cell.
        dispersion: an image's loss is divided by sqrt(1 + dispersion * its expected heads), a constant for the gradient.
            Errors of dense crowds grow faster than a Poisson count's, so that without it they outweigh all others.
    """
    weight = (1 + dispersion * density.detach().sum((1, 2, 3))).rsqrt()
    terms = []
    for side in BLOCKS:
        rate, count = (_blocks(x, max(side // stride, 1)) for x in (density, counts))
        likelihood = F.poisson_nll_loss(rate, count, log_input=False, reduction="none")
        terms.append((weight * likelihood.sum((1, 2, 3))).mean())
    return torch.stack(terms).mean()


def zip_loss(cells: Tensor, counts: Tensor) -> Tensor:
    """ZIP (arXiv 2506.19955): sums over the cells of four terms, mean over images.

    Cross entropy over the bins of the cells that hold heads; negative log-likelihood of zero-inflated Poisson counts;
    absolute error of the counts of 1, 2 x 2 and 4 x 4 cells, weighted by 1/4, 1/2 and 1; and that of the whole image.

    Args:
        cells: [B, OUTPUTS, h, w], the head's output, see `zero_inflated`; counts: [B, 1, h, w], heads per cell, times the
            network's density_scale.
    """
    model = zero_inflated(cells)
    held = counts > 0
    classes = F.cross_entropy(model.bins, bin_of(counts[:, 0].clamp_min(1)), reduction="none")[:, None]
    empty = torch.logaddexp(model.log_empty, model.log_occupied - model.rate)
    full = model.log_occupied + counts * model.rate.log() - model.rate - torch.lgamma(counts + 1)
    likelihood = torch.where(held, full, empty)
    total = (classes * held).sum() - likelihood.sum()
    for side, weight in _SCALES:
        total = total + weight * (_blocks(model.density, side) - _blocks(counts, side)).abs().sum()
    total = total + (model.density - counts).sum((1, 2, 3)).abs().sum()
    return total / len(cells)


def dm_loss(density: Tensor, counts: Tensor, people: Annotation, images: int) -> Tensor:
    """DM-Count (Wang et al., NeurIPS 2020): count, optimal transport and total variation.

    With S = sum D of an image and N its heads: the mean of |S - N|, 0.1 times the sum over the step's images of the transport
    (`ops.transport`, whose objective's value is not zero at the minimum), and 0.01 times the mean of N sum |D / S - t / N|.

    Args:
        density: [B, 1, h, w]; what a leaking ReLU makes negative has a part in the count alone.
        counts: t [B, 1, h, w], heads per cell; images: of an optimiser step.
    """
    sums, heads = (x.sum((1, 2, 3), keepdim=True) for x in (density, counts))
    positive = density.clamp_min(0)
    transport = ops.transport(positive, people.points, people.offsets, stride=people.stride).objective.mean() * images
    shares = positive / (positive.sum((1, 2, 3), keepdim=True) + 1e-6) - counts / (heads + 1e-6)
    variation = (heads * shares.abs().sum((1, 2, 3), keepdim=True)).mean()
    return (sums - heads).abs().mean() + 0.1 * transport + 0.01 * variation


def ssim_loss(density: Tensor, target: Tensor) -> Tensor:
    """Dilated multi-scale structural similarity (DSSINet, Liu et al., ICCV 2019): 1 minus the product of five, mean over images.

    Both maps are scaled so that the target's largest value is 255. Their local means, variances and covariance are
    taken with a Gaussian of 5 x 5 cells (standard deviation 1) dilated by 1; the means are the maps of the next of five scales,
    whose dilations are 2, 3, 6 and 9. SSIM is Wang's (C1 = 2.55^2, C2 = 7.65^2), averaged over the cells; the exponents are
    those of MS-SSIM. The authors' code takes the largest value of a batch and averages SSIM over the batch before the
    exponents, and at each scale halves the maps in place of taking their means.

    Args:
        density, target: [B, 1, h, w]. An image without heads has a largest value of 1.
    """
    peak = target.amax((1, 2, 3), keepdim=True)
    x, y = (maps * 255 / torch.where(peak > 0, peak, 1.0) for maps in (density, target))
    axis = torch.exp(-torch.arange(-2.0, 3.0, device=x.device, dtype=x.dtype).square() / 2)
    axis = axis / axis.sum()
    window = (axis[:, None] * axis)[None, None]
    similarity = x.new_ones(len(x))
    for dilation, exponent in _DILATIONS.items():

        def mean(maps: Tensor, dilation: int = dilation) -> Tensor:
            return F.conv2d(maps, window, padding=2 * dilation, dilation=dilation)

        mx, my = mean(x), mean(y)
        vx, vy, vxy = mean(x * x) - mx * mx, mean(y * y) - my * my, mean(x * y) - mx * my
        ssim = (2 * mx * my + _C1) * (2 * vxy + _C2) / ((mx * mx + my * my + _C1) * (vx + vy + _C2))
        # A root of a negative mean is not defined; that of zero has no finite slope.
        similarity = similarity * ssim.mean((1, 2, 3)).clamp_min(1e-6) ** exponent
        x, y = mx, my
    return (1 - similarity).mean()


def _blocks(x: Tensor, side: int) -> Tensor:
    """Sums over blocks of ``side`` x ``side`` cells, smaller ones at the lower and right border."""
    return F.avg_pool2d(x, side, ceil_mode=True, divisor_override=1)


def count_cells(points: Tensor, offsets: Tensor, size: tuple[int, int], stride: int) -> Tensor:
    """Annotation per cell, exact: float32 [B, 1, ceil(H / stride), ceil(W / stride)]. Points outside count nowhere.

    Args:
        points: [M, 2] (x, y) in pixels; offsets: int64 [B + 1]; size: (H, W) in pixels.
    """
    height, width = (-(-side // stride) for side in size)
    images = len(offsets) - 1
    # Sizes do not depend on values: on a GPU nothing waits.
    owner = torch.searchsorted(offsets, torch.arange(len(points), device=points.device), right=True) - 1
    column, row = (points / stride).floor().long().unbind(1)
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    cell = ((owner * height + row) * width + column).where(inside, 0)
    counts = torch.zeros(images * height * width, device=points.device)
    return counts.scatter_add_(0, cell, inside.float()).view(images, 1, height, width)
