"""CANet: CSRNet with context of several sizes (Liu, Salzmann and Fua, "Context-Aware Crowd Counting", CVPR 2019)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .published import (
    VGG,
    PublishedNetwork,
    deviation,
    dilated,
    initialise,
    named,
    register_network,
    scaled,
)

_GRIDS = (1, 2, 3, 6)  # cells per side of the pooled context


class Context(nn.Module):
    """Features f and their context of four sizes, weighed at every place: Eq. 2 to 5 of the paper.

    s_j = up(conv_j(pool_j(f))), w_j = sigmoid(conv(s_j - f)), and [f, sum_j w_j s_j / sum_j w_j]. The paper does not
    say how both halves become the back end's 512 channels; its number of parameters leaves a 1x1 convolution, and one
    convolution for all w_j.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scales = nn.ModuleList(nn.Conv2d(channels, channels, 1, bias=False) for _ in _GRIDS)
        self.weight = nn.Conv2d(channels, channels, 1)
        self.merge = nn.Conv2d(2 * channels, channels, 1)

    def forward(self, f: Tensor) -> Tensor:
        """f [B, C, h, w] of the whole image -> [B, C, h, w]"""
        total, weights = torch.zeros_like(f), torch.zeros_like(f)
        for grid, scale in zip(_GRIDS, self.scales, strict=True):
            s = F.interpolate(
                scale(F.adaptive_avg_pool2d(f, grid)), size=f.shape[-2:], mode="bilinear", align_corners=False
            )
            w = torch.sigmoid(self.weight(s - f))
            total, weights = total + w * s, weights + w
        # In bfloat16 and float16 sigmoid can round to zero.
        return F.relu(self.merge(torch.cat([f, total / weights.clamp_min(1e-6)], 1)))


@register_network("CANet: CSRNet with context of four sizes")
class CANet(PublishedNetwork):
    """CANet: 18,103,489 parameters, density at 1/8, batch norm in the back end. Written from the paper (arXiv 1811.10452).

    Its pyramid pools the whole image, so a large image's context comes from all of it and not from a tile. An attention
    weighs VGG16's 512 features before the pyramid. The arguments are `PublishedNetwork`'s.
    """

    network, cell, pretrained = "canet", 8, "vgg16"
    exports = False  # adaptive pooling of a size that is not known

    @classmethod
    def build(cls, outputs: int, width: float) -> tuple[Any, nn.Module]:
        """See `PublishedNetwork.build`."""
        front = VGG("vgg16", width)
        (channels,), (last,) = front.channels, scaled((64,), width)
        head = named(
            context=initialise(Context(channels), deviation(width)),
            backend=dilated(channels, width, norm=True),
            output=initialise(nn.Conv2d(last, outputs, 1), deviation(width)),
        )
        return front, head
