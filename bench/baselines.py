"""What a careful PyTorch user would write instead of the package: plain eager code, every formula in its usual form.

The functions take the operators' tensors, so that both sides compute the same from the same values. Noise is PyTorch's
own generator's, unless it is given.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from dkpnet_ext.models import DKPNet


def variational(
    mu: Tensor,
    logvar: Tensor,
    centers: Tensor,
    prior_logvar: Tensor,
    labels: Tensor,
    eps: Tensor | None = None,
    dropout: float = 0.0,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """One sample: z [B, d] and KL, log-sum-exp regulariser and log^2 det, each [B]."""
    z = mu + torch.exp(0.5 * logvar) * (torch.randn_like(mu) if eps is None else eps)
    scores = torch.einsum("bd,ckd->bck", mu.detach(), centers.detach())
    selected = F.dropout(scores, dropout).argmax(-1)
    chosen = centers[torch.arange(len(centers), device=mu.device), selected]  # [B, C, d]
    own = chosen[torch.arange(len(mu), device=mu.device), labels]
    own_logvar = prior_logvar[labels]
    distance = (own - mu).square() * (-own_logvar).exp()
    kl = 0.5 * (own_logvar - logvar - 1 + (logvar - own_logvar).exp() + distance).sum(1)
    lse = F.cross_entropy(torch.einsum("bd,bcd->bc", z, chosen), labels, reduction="none")
    return z, kl, lse, own_logvar.sum(1).square()


def reweight(x: Tensor, attention: Tensor) -> Tensor:
    """x [B, K, H, W] * attention [B, K]."""
    return x * attention[:, :, None, None]


def features(branches: Sequence[Tensor], weight: Tensor, bias: Tensor, size: tuple[int, int]) -> Tensor:
    """x [B, K, H, W]: the branches upsampled, concatenated, and convolved to K channels."""
    upsampled = [
        b if b.shape[2:] == size else F.interpolate(b, size=size, mode="bilinear", align_corners=False)
        for b in branches
    ]
    return F.conv2d(torch.cat(upsampled, dim=1), weight[:, :, None, None], bias)


def regress(
    x: Tensor, weight1: Tensor, bias1: Tensor, weight2: Tensor, bias2: Tensor, weight3: Tensor, bias3: Tensor
) -> Tensor:
    """Density [B, 1, H, W] from re-weighted features."""
    x = F.relu(F.conv2d(x, weight1[:, :, None, None], bias1))
    x = F.relu(F.conv2d(x, weight2[:, :, None, None], bias2))
    return F.conv2d(x, weight3[:, :, None, None], bias3)


def head(branches: Sequence[Tensor], attention: Tensor, *parameters: Tensor) -> tuple[Tensor, Tensor]:
    """The paper's head at the first branch's size: density [B, 1, H, W], and the pooled features [B, K]."""
    x = features(branches, *parameters[:2], branches[0].shape[2:])
    return regress(reweight(x, attention), *parameters[2:]), x.mean((2, 3))


def network(
    model: DKPNet, images: Tensor, labels: Tensor | None = None, sample: Callable = variational
) -> tuple[Tensor, ...]:
    """The paper's network over a DKPNet's own parameters.

    Args:
        images: uint8 [B, 3, H, W], sides multiples of 16; labels: int64 [B], or None (evaluation, z = mu).
        sample: what is used as `variational`.

    Returns:
        density [B, 1, H / 4, W / 4] times the model's density_scale; with labels also the three regularisers [B].
    """
    net, attention = model.head, model.attention
    images = (images.float() / 255 - model.pixel_mean) / model.pixel_std
    branches = model.backbone(images)
    size = (images.shape[2] // 4, images.shape[3] // 4)
    x = features(branches, net.neck.weight.flatten(1), net.neck.bias, size)
    mu, logvar = attention.encoder(x.mean((2, 3))).chunk(2, dim=1)
    terms: Sequence[Tensor] = ()
    if labels is not None:
        mu, *terms = sample(mu, logvar, attention.centers, attention.prior_logvar, labels)
    x = reweight(x, torch.sigmoid(attention.decoder(mu)))
    tail = (p for conv in (net.conv1, net.conv2, net.conv3) for p in (conv.weight.flatten(1), conv.bias))
    return F.leaky_relu(regress(x, *tail), 0.01 if model.training else 0.0), *terms
