"""Channel attention: squeeze-and-excitation, variational (VA) and intrinsic variational (InVA)."""

from __future__ import annotations

from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from .. import ops

CENTER_NORM = 4.0
"""Norm at which the domains' centres start (expected; the paper does not say). Two centres are then 5.7 noise deviations
apart, so that z tells its domain from the first step; at norm 1 they fall onto each other before the encoder has
learned to, and climb out of that only over thousands of steps (bench/results/latent.md)."""


class AttentionOutput(NamedTuple):
    """What an attention module says of a batch; the last five are None where they do not apply.

    With N > 1 latent samples in training, ``attention`` has N * B rows: first every image's first sample.
    """

    attention: Tensor  # y [B, K] in (0, 1)
    mu: Tensor | None = None  # [B, d], mean of the latent z
    logvar: Tensor | None = None  # [B, d], logarithm of its variance
    kl: Tensor | None = None  # [B], Eq. 3
    lse: Tensor | None = None  # [B], Eq. 6: log of the sum of exponentials over all centres
    logdet2: Tensor | None = None  # [B], Eq. 7


class SqueezeExcitation(nn.Module):
    """y = sigmoid(MLP(g)) (Hu et al., CVPR 2018), the paper's comparison system.

    Args:
        channels: K; reduction: width of the hidden layer is K / reduction.
    """

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        hidden = max(channels // reduction, 1)
        self.mlp = nn.Sequential(nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, channels))

    @property
    def last(self) -> nn.Linear:
        """The layer before the sigmoid."""
        return cast(nn.Linear, self.mlp[-1])

    def forward(self, pooled: Tensor, labels: Tensor | None = None, *, batch_offset: int = 0) -> AttentionOutput:
        """pooled [B, K] -> attention [B, K]; the label plays no part."""
        return AttentionOutput(torch.sigmoid(self.mlp(pooled)))


class VariationalAttention(nn.Module):
    """VA (num_sub = 1) and InVA (num_sub > 1): Eq. 1 to 8 of the DKPNet paper.

    Args:
        channels: K; latent_dim: d; num_domains: C; num_sub: k sub-components of a domain.
        num_samples: N latent samples of an image in training.
        dropout: Eq. 8's dropout of the sub-component scores in training, in [0, 1).

    Parameters of its own are ``centers`` [C, k, d] and ``prior_logvar`` [C, d], the domains' priors.
    """

    def __init__(
        self,
        channels: int,
        latent_dim: int,
        num_domains: int,
        num_sub: int = 1,
        num_samples: int = 1,
        dropout: float = 0.2,
    ) -> None:
        super().__init__()
        self.num_samples, self.dropout = num_samples, dropout
        # The pooled features' scale follows the density loss, which without the norm can silence every hidden unit of
        # the encoder in the first steps: the attention is then the same for all images, and clustering it means nothing
        # (seen on SHA + SHB + BRT, learning rate 1e-3).
        self.encoder = nn.Sequential(
            nn.LayerNorm(channels),
            nn.Linear(channels, 2 * latent_dim),
            nn.ReLU(),
            nn.Linear(2 * latent_dim, 2 * latent_dim),
        )
        self.decoder = nn.Sequential(
            nn.Linear(latent_dim, 2 * latent_dim), nn.ReLU(), nn.Linear(2 * latent_dim, channels)
        )
        centers = CENTER_NORM * torch.randn(num_domains, 1, latent_dim)
        if (
            num_sub > 1
        ):  # sub-centres start near their domain's centre, at a distance of 1: the selection is still chance
            centers = centers + torch.randn(num_domains, num_sub, latent_dim)
        self.centers = nn.Parameter(centers * latent_dim**-0.5)
        self.prior_logvar = nn.Parameter(torch.zeros(num_domains, latent_dim))

    @property
    def last(self) -> nn.Linear:
        """The layer before the sigmoid."""
        return cast(nn.Linear, self.decoder[-1])

    def forward(self, pooled: Tensor, labels: Tensor | None = None, *, batch_offset: int = 0) -> AttentionOutput:
        """Attention of a batch, with its regularisers where labels are given.

        Args:
            pooled: g [B, K].
            labels: int64 [B] domain of each image, or None (prediction needs none).
            batch_offset: index of the batch's first image in the global batch of all processes, so that their noise is
                what one process would draw.

        Returns:
            attention [B, K] (in training with labels [N * B, K]), mu and logvar; with labels also kl, lse and logdet2.
        """
        mu, logvar = self.encoder(pooled).chunk(2, dim=-1)
        if labels is None:
            return AttentionOutput(torch.sigmoid(self.decoder(mu)), mu, logvar)
        # Outside training z = mu (no noise) and Eq. 8 has no dropout.
        samples = self.num_samples if self.training else 1
        eps = None if self.training else torch.zeros_like(mu).unsqueeze(0)
        out = ops.variational(
            mu, logvar, self.centers, self.prior_logvar, labels,
            eps=eps, num_samples=samples, dropout=self.dropout if self.training else 0.0, batch_offset=batch_offset,
        )  # fmt: skip
        attention = torch.sigmoid(self.decoder(out.z.to(mu.dtype).flatten(0, 1)))
        return AttentionOutput(attention, mu, logvar, out.kl, out.lse, out.logdet2)
