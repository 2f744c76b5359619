"""MB, the paper's comparison: one head per data set behind a shared neck, and a classifier that picks the head."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from .checks import check_labels, check_number
from .counter import CrowdCounter
from .head import AttendedHead
from .network import CounterOutput, Decision, Link
from .registry import register


@register("mb", "multi-branch: a head per data set, picked by a classifier")
class MultiBranch(CrowdCounter):
    """MB, the paper's comparison: shared backbone and neck, one head per domain; a domain classifier picks the head.

    In training the label picks the head and the classifier learns by cross entropy; at test time the classifier picks.

    Args:
        num_domains: C, by default the number of ``domains``; the others are `Network`'s.

    Raises:
        ValueError: an argument of another type or out of its range.
    """

    without_attention = "none, one head per domain"

    def __init__(
        self,
        backbone: str = "hrnet_w40",
        num_domains: int = 0,
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
        check_number("num_domains", num_domains, 0, 1000)
        num_domains = num_domains or len(domains)
        if num_domains < 1:
            raise ValueError("MultiBranch needs num_domains or the domains' names")
        self.heads = nn.ModuleList(
            AttendedHead(self.backbone.channels, channels, outputs=self.outputs) for _ in range(num_domains)
        )
        for head in self.heads:  # one neck for all
            head.neck = self.heads[0].neck
        self.classifier = nn.Linear(channels, num_domains)

    def forward(self, images: Tensor, labels: Tensor | None = None, batch_offset: int = 0) -> CounterOutput:
        """As `Network.forward`; ``domain_logits`` [B, C] are the classifier's.

        Raises:
            ValueError: see `Network.features`; a label that is no domain.
        """
        branches, padded, size = self.features(images)
        pooled, _ = self.pooling_head.pool(branches, padded)
        logits = self.classifier(pooled)
        chosen = logits.argmax(1) if labels is None else check_labels(labels, len(self.heads))
        # Every head runs on every image, so that all have gradients in every step (DDP asks for that).
        densities = torch.stack([head(branches, None, padded, None) for head in self.heads])
        output = densities[chosen, torch.arange(images.shape[0], device=images.device)]
        return self.respond(output, size, domain_logits=logits)

    @property
    def pooling_head(self) -> AttendedHead:
        """The first head: its neck is everyone's."""
        return cast(AttendedHead, self.heads[0])

    def decide(self, pooled: Tensor) -> Decision:
        """The classifier's ``domain_logits``: the largest picks the head that counts."""
        return Decision(domain_logits=self.classifier(pooled))

    def decode(self, branches: list[Tensor], decision: Decision, size: tuple[int, int]) -> Tensor:
        """See `Network.decode`."""
        assert decision.domain_logits is not None
        densities = [
            self.heads[int(domain)]([b[i : i + 1] for b in branches], None, size, None)
            for i, domain in enumerate(decision.domain_logits.argmax(1))
        ]
        return self.unscale(torch.cat(densities))
