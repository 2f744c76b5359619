"""After MDKNet (Guo et al., T-NNLS 2024): normalisation whose gain and offset follow from a latent that tells data sets apart."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import torch
from torch import Tensor, nn

from .checks import check_labels, check_number
from .counter import CrowdCounter
from .head import AttendedHead
from .network import CounterOutput, Decision, Link
from .registry import register

CONFIDENCE = 0.9
"""An image that the classifier holds for another data set's with at least this probability becomes one of their virtual class."""


@register("mdknet", "after MDKNet: normalisation by a latent of the data sets, with virtual classes between them")
class MDKNet(CrowdCounter):
    """After "Virtual Classification: Modulating Domain-Specific Knowledge" (arXiv 2402.03758), written from its abstract.

    Instance-specific batch normalisation: the K features are normalised over the batch, then scaled, shifted and cut off at
    zero; gain and offset of an image are a linear function of its latent z = W LayerNorm(g), g the pooled features. A
    classifier of z, the domain-guided virtual classifier, keeps data sets apart in the latent space. Beside a class per data
    set it has a virtual one per pair of data sets, for images in which the two overlap.

    The abstract does not settle the latent's form and width, the classes' number, when a label is re-assigned, and the
    classifier's weight. Chosen here: the form above and ``latent_dim``; every pair; an image that the classifier holds for
    another data set's with a probability of `CONFIDENCE` among the data sets; and 1. A figure of this system says nothing
    about the published one.

    Args:
        num_domains: C, by default the number of ``domains``; latent_dim: d; the others are `Network`'s.

    Raises:
        ValueError: an argument of another type or out of its range.
    """

    def __init__(
        self,
        backbone: str = "hrnet_w40",
        num_domains: int = 0,
        latent_dim: int = 128,
        channels: int = 512,
        domains: Sequence[str] = (),
        out_stride: int = 4,
        density_scale: float = 1.0,
        link: Link = "relu",
        fold_norms: bool = False,
        min_side: int = 416,
        max_side: int = 2048,
    ) -> None:
        super().__init__(
            backbone, channels=channels, domains=domains, out_stride=out_stride, density_scale=density_scale,
            link=link, fold_norms=fold_norms, min_side=min_side, max_side=max_side,
        )  # fmt: skip
        check_number("num_domains", num_domains, 0, 100)
        check_number("latent_dim", latent_dim, 1, 4096)
        self.num_domains = num_domains or len(domains)
        if self.num_domains < 1:
            raise ValueError("MDKNet needs num_domains or the domains' names")
        self.head = AttendedHead(self.backbone.channels, channels, "literal", self.outputs)
        self.norm = nn.BatchNorm2d(channels, affine=False)
        self.guide = nn.Sequential(nn.LayerNorm(channels), nn.Linear(channels, latent_dim))
        self.gain, self.offset = nn.Linear(latent_dim, channels), nn.Linear(latent_dim, channels)
        for layer, start in ((self.gain, 1.0), (self.offset, 0.0)):  # it starts as batch norm
            nn.init.zeros_(layer.weight)
            nn.init.constant_(layer.bias, start)
        self.pairs = {pair: self.num_domains + i for i, pair in enumerate(combinations(range(self.num_domains), 2))}
        self.classifier = nn.Linear(latent_dim, self.num_domains + len(self.pairs))

    def forward(self, images: Tensor, labels: Tensor | None = None, batch_offset: int = 0) -> CounterOutput:
        """As `Network.forward`; ``mu`` [B, d] is the latent.

        ``domain_logits`` [B, C + C (C - 1) / 2] are the classifier's. In training those of an image whose label is re-assigned
        have the two classes' columns exchanged, so that the cross entropy against its data set is the one against its class.

        Raises:
            ValueError: see `Network.features`; a label that is no domain.
        """
        branches, padded, size = self.features(images)
        pooled, _ = self.head.pool(branches, padded)
        decision = self.decide(pooled)
        z, logits = decision.mu, decision.domain_logits
        assert z is not None and logits is not None
        if labels is not None and self.training:
            logits = self._reassigned(logits, check_labels(labels, self.num_domains))
        return self.respond(self._modulated(branches, z, padded), size, mu=z, domain_logits=logits)

    def _reassigned(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The logits with the columns of the label and of the virtual class exchanged, where an image is taken for another's."""
        confidence, likely = logits.detach()[:, : self.num_domains].softmax(1).max(1)
        columns = torch.arange(logits.shape[1], device=logits.device).repeat(len(logits), 1)
        for (a, b), virtual in self.pairs.items():
            overlaps = (confidence >= CONFIDENCE) & (labels != likely)
            rows = overlaps & ((labels == a) | (labels == b)) & ((likely == a) | (likely == b))
            columns[rows, labels[rows]] = virtual
            columns[rows, virtual] = labels[rows]
        return logits.gather(1, columns)

    def _modulated(self, branches: list[Tensor], z: Tensor, size: tuple[int, int]) -> Tensor:
        """The head's output from features and latents [B, d]."""
        _, x = self.head.pool(branches, size)
        assert x is not None  # of the literal form
        x = self.norm(x) * self.gain(z)[:, :, None, None] + self.offset(z)[:, :, None, None]
        return self.head(branches, None, size, x.relu())

    @property
    def pooling_head(self) -> AttendedHead:
        """The only head."""
        return self.head

    def decide(self, pooled: Tensor) -> Decision:
        """The latent as ``mu`` [B, d], and the classifier's logits of it."""
        z = self.guide(pooled)
        return Decision(mu=z, domain_logits=self.classifier(z))

    def decode(self, branches: list[Tensor], decision: Decision, size: tuple[int, int]) -> Tensor:
        """See `Network.decode`."""
        assert decision.mu is not None
        return self.unscale(self._modulated(branches, decision.mu, size))
