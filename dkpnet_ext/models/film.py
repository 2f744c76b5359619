"""FiLM by the domain: a gain and an offset per channel and data set; given the true data set, an upper bound for attention."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from .checks import check_labels, check_number
from .counter import CrowdCounter
from .head import AttendedHead
from .network import CounterOutput, Decision, Link
from .registry import register


@register("film", "FiLM: a gain and an offset per channel and data set, picked by a classifier or by the label")
class FiLM(CrowdCounter):
    """Feature-wise linear modulation (Perez et al., AAAI 2018) of the K features by the domain: x <- gain_c x + offset_c.

    The domain c is the label where labels are given, in evaluation as well: ``model(images, labels)`` is then an oracle, an
    upper bound for what attention per channel can gain. Without labels a classifier of the pooled features picks it, as in
    `MultiBranch`. Gains start at 1 and offsets at 0: the network starts as joint training.

    Args:
        num_domains: C, by default the number of ``domains``; the others are `Network`'s.

    Raises:
        ValueError: an argument of another type or out of its range.
    """

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
        self.num_domains = num_domains or len(domains)
        if self.num_domains < 1:
            raise ValueError("FiLM needs num_domains or the domains' names")
        self.head = AttendedHead(self.backbone.channels, channels, "literal", self.outputs)
        self.gains = nn.Embedding(self.num_domains, channels)
        self.offsets = nn.Embedding(self.num_domains, channels)
        nn.init.ones_(self.gains.weight)
        nn.init.zeros_(self.offsets.weight)
        self.classifier = nn.Linear(channels, self.num_domains)

    def forward(self, images: Tensor, labels: Tensor | None = None, batch_offset: int = 0) -> CounterOutput:
        """As `Network.forward`; ``domain_logits`` [B, C] are the classifier's.

        Raises:
            ValueError: see `Network.features`; a label that is no domain.
        """
        branches, padded, size = self.features(images)
        pooled, _ = self.head.pool(branches, padded)
        logits = self.classifier(pooled)
        domain = logits.argmax(1) if labels is None else check_labels(labels, self.num_domains)
        return self.respond(self._modulated(branches, domain, padded), size, domain_logits=logits)

    def _modulated(self, branches: list[Tensor], domain: Tensor, size: tuple[int, int]) -> Tensor:
        """The head's output from features and the domains int64 [B]."""
        _, x = self.head.pool(branches, size)
        assert x is not None  # of the literal form
        x = x * self.gains(domain)[:, :, None, None]
        return self.head(branches, None, size, x + self.offsets(domain)[:, :, None, None])

    @property
    def pooling_head(self) -> AttendedHead:
        """The only head."""
        return self.head

    def decide(self, pooled: Tensor) -> Decision:
        """The classifier's ``domain_logits``: the largest picks gains and offsets."""
        return Decision(domain_logits=self.classifier(pooled))

    def decode(self, branches: list[Tensor], decision: Decision, size: tuple[int, int]) -> Tensor:
        """See `Network.decode`."""
        assert decision.domain_logits is not None
        return self.unscale(self._modulated(branches, decision.domain_logits.argmax(1), size))
