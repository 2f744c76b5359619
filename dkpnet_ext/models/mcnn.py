"""MCNN: three columns of small, middle and large kernels (Zhang et al., CVPR 2016)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .published import PublishedNetwork, deviation, initialise, register_network, scaled

_COLUMNS = (  # kernel of the first convolution and of the other three; channels
    (9, 7, (16, 32, 16, 8)),
    (7, 5, (20, 40, 20, 10)),
    (5, 3, (24, 48, 24, 12)),
)


class Columns(nn.Module):
    """The three columns side by side: 30 features at 1/4."""

    name, reductions = "mcnn", (4,)

    def __init__(self, width: float = 1.0) -> None:
        super().__init__()
        columns = [(first, others, scaled(widths, width)) for first, others, widths in _COLUMNS]
        self.columns = nn.ModuleList(_column(*column) for column in columns)
        self.channels = (sum(widths[-1] for _, _, widths in columns),)
        initialise(self, None)

    def stages(self) -> list[list[nn.Module]]:
        """None that is pretrained."""
        return []

    def forward(self, x: Tensor) -> list[Tensor]:
        """x [B, 3, H, W] -> one [B, 30, H/4, W/4]."""
        return [torch.cat([column(x) for column in self.columns], 1)]


def _column(first: int, others: int, widths: tuple[int, ...]) -> nn.Sequential:
    layers: list[nn.Module] = []
    channels = 3
    for i, width in enumerate(widths):
        kernel = others if i else first
        layers += [nn.Conv2d(channels, width, kernel, padding=kernel // 2), nn.ReLU(inplace=True)]
        if i < 2:
            layers.append(nn.MaxPool2d(2))
        channels = width
    return nn.Sequential(*layers)


@register_network("MCNN: three columns of different kernels, from scratch")
class MCNN(PublishedNetwork):
    """MCNN: 133,705 parameters (127,953 of them without the two colour channels that a gray image lacks), density at 1/4.

    Written from the paper. The columns are trained together; the paper trains each alone first. An attention weighs
    their 30 features before the 1x1 convolution. The arguments are `PublishedNetwork`'s.
    """

    network, cell = "mcnn", 4

    @classmethod
    def build(cls, outputs: int, width: float) -> tuple[Any, nn.Module]:
        """See `PublishedNetwork.build`."""
        columns = Columns(width)
        return columns, initialise(nn.Conv2d(*columns.channels, outputs, 1), deviation(width))
