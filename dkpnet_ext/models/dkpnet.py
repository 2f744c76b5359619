"""DKPNet (ICCV 2021) and the paper's comparisons that share its network: VA, SE and JT."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from .attention import SqueezeExcitation, VariationalAttention
from .backbones import same_dtype
from .checks import check_choice, check_number
from .counter import CrowdCounter
from .fpn import FPNHead
from .head import AttendedHead, Form
from .network import CounterOutput, Decision, Link
from .registry import register

Attention = Literal["none", "se", "va", "inva"]
Neck = Literal["paper", "fpn"]
_SYSTEMS = {"inva": "dkpnet", "va": "va", "se": "se", "none": "jt"}


@register("jt", "joint training: no attention (on one data set: individual training, IT)", {"attention": "none"})
@register("se", "squeeze-and-excitation", {"attention": "se"})
@register("va", "variational attention with the data sets as domains: stage I alone", {"attention": "va", "num_sub": 1})
@register(
    "dkpnet", "both stages: VA, then InVA on its clusters", {"attention": "va", "num_sub": 1}, {"attention": "inva"}
)
class DKPNet(CrowdCounter):
    """DKPNet (ICCV 2021): variational attention learns one counter from several data sets.

    Args:
        attention: ``inva`` (k sub-components), ``va`` (one), ``se`` (squeeze-and-excitation) or ``none`` (joint
            training, or individual training on one data set).
        num_domains: C, data sets in stage I, clusters in stage II; by default the number of ``domains``.
        num_sub: k sub-components of a domain; latent_dim: d; num_samples: N latent samples in training.
        neck: ``paper`` (`AttendedHead`, cells of 2 or 4 pixels) or ``fpn`` (`FPNHead`, cells of 8).
        head: ``folded`` or ``literal``, see `AttendedHead`.
        The others are `Network`'s.

    Raises:
        ValueError: an argument of another type or out of its range; ``va`` with sub-components.
    """

    def __init__(
        self,
        backbone: str = "hrnet_w40",
        attention: Attention = "inva",
        num_domains: int = 0,
        num_sub: int = 1,
        latent_dim: int = 128,
        num_samples: int = 1,
        channels: int = 512,
        domains: Sequence[str] = (),
        out_stride: int = 4,
        density_scale: float = 1.0,
        link: Link = "relu",
        fold_norms: bool = False,
        neck: Neck = "paper",
        head: Form = "folded",
        min_side: int = 416,
        max_side: int = 2048,
    ) -> None:
        super().__init__(
            backbone, channels=channels, domains=domains, out_stride=out_stride, density_scale=density_scale,
            link=link, fold_norms=fold_norms, min_side=min_side, max_side=max_side,
        )  # fmt: skip
        check_choice("attention", attention, tuple(_SYSTEMS))
        check_choice("neck", neck, ("paper", "fpn"))
        check_choice("head", head, ("folded", "literal"))
        if (neck == "fpn") != (out_stride == 8):
            raise ValueError(f"neck {neck!r} with out_stride {out_stride}: fpn has cells of 8 pixels, paper of 2 or 4")
        check_number("num_domains", num_domains, 0, 1000)
        check_number("num_sub", num_sub, 1, 64)
        check_number("latent_dim", latent_dim, 1, 4096)
        check_number("num_samples", num_samples, 1, 1000)
        variational, num_domains = attention in ("va", "inva"), num_domains or len(domains)
        if variational and num_domains < 1:
            raise ValueError(f"attention {attention!r} needs num_domains or the domains' names")
        if attention == "va" and num_sub != 1:
            raise ValueError(f"attention 'va' has one component per domain; num_sub {num_sub} is 'inva'")
        self.head: AttendedHead | FPNHead
        if neck == "fpn":
            self.head = FPNHead(self.backbone.channels, channels, self.outputs)
        else:
            self.head = AttendedHead(self.backbone.channels, channels, head, self.outputs)
        self.attention: SqueezeExcitation | VariationalAttention | None = None
        if variational:
            self.attention = VariationalAttention(channels, latent_dim, num_domains, num_sub, num_samples)
        elif attention == "se":
            self.attention = SqueezeExcitation(channels)

    @property
    def system(self) -> str:
        """dkpnet, va, se or jt, by the attention."""
        return _SYSTEMS[self.arguments["attention"]]

    def forward(self, images: Tensor, labels: Tensor | None = None, batch_offset: int = 0) -> CounterOutput:
        """As `Network.forward`; with labels the regularisers of variational attention are computed, too."""
        pixels, padded, size = self.normalised(images)
        whole = self._by_engine(pixels) if labels is None else None
        if whole is not None:
            return self.respond(whole.pop("output"), size, **whole)
        branches = same_dtype(self.backbone(pixels))
        if self.attention is None:
            x = None if self.head.form == "folded" else self.head.pool(branches, padded)[1]
            output = self.head(branches, None, padded, x)
            return self.respond(output, size)
        pooled, x = self.head.pool(branches, padded)
        att = self.attention(pooled, labels, batch_offset=batch_offset)
        samples = att.attention.shape[0] // max(images.shape[0], 1)
        if samples > 1:  # every latent sample of an image meets the same features
            branches = [b.repeat(samples, 1, 1, 1) for b in branches]
            x = None if x is None else x.repeat(samples, 1, 1, 1)
        output = self.head(branches, att.attention, padded, x)
        return self.respond(output, size, **att._asdict())

    def _by_engine(self, pixels: Tensor) -> dict[str, Tensor] | None:
        """The head's output and the attention of normalised images, where an engine has the whole network."""
        return self.backbone.counted(pixels) if hasattr(self.backbone, "counted") else None

    @property
    def pooling_head(self) -> AttendedHead | FPNHead:
        """The only head."""
        return self.head

    @torch.no_grad()
    def start_neutral(self) -> None:
        """Let attention begin without an effect: 1/2 for every image and channel, and double weights in the convolution after it.

        It is for a head that was trained without attention (`train --weights COUNTER`): at a random attention near 1/2 that
        head would begin with half of its features.
        """
        if self.attention is not None:
            nn.init.zeros_(self.attention.last.weight)
            nn.init.zeros_(self.attention.last.bias)
            self.head.attended.weight.mul_(2)

    def decide(self, pooled: Tensor) -> Decision:
        """Attention [B, K] with its latent's mean and log-variance [B, d], as far as there are any."""
        if self.attention is None:
            return Decision()
        att = self.attention(pooled)
        return Decision(att.attention, att.mu, att.logvar)

    def decode(self, branches: list[Tensor], decision: Decision, size: tuple[int, int]) -> Tensor:
        """See `Network.decode`."""
        x = None if self.head.form == "folded" else self.head.pool(branches, size)[1]
        return self.unscale(self.head(branches, decision.attention, size, x))
