"""The `fpn` neck and head: features at 1/8 and 1/16 of the image, mixed by depthwise convolutions, density at 1/8."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import ops
from .convolutions import FusedPointwise


class Mix(nn.Module):
    """x + 1x1(ReLU6(depthwise k x k(x))): [B, C, H, W] -> the same shape."""

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, kernel, padding=kernel // 2, groups=channels)
        self.act = nn.ReLU6(inplace=True)
        self.pointwise = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """x [B, C, H, W] -> [B, C, H, W]"""
        return x + self.pointwise(self.act(self.depthwise(x)))


class FPNHead(nn.Module):
    """Backbone branches -> features at 1/8 -> (attention from outside) -> density, with the calls of `AttendedHead`.

    Top-down fusion as in feature pyramid networks (Lin et al., CVPR 2017). Unlike the paper's neck it is not linear and
    looks at neighbouring cells, so that a small backbone can tell a head from gravel by what is around it.

    Args:
        in_channels: widths of the branches, the last two at 1/8 and 1/16; channels: K, width of the features;
            outputs: channels of the output.
    """

    form = "folded"  # features that nobody pooled are computed in `forward`
    coarse_cells = 3  # of 16 pixels: 5 x 5 at 1/16 reaches 32 pixels, two 3 x 3 at 1/8 reach 16

    def __init__(self, in_channels: Sequence[int], channels: int = 64, outputs: int = 1) -> None:
        super().__init__()
        fine, coarse = in_channels[-2:]
        self.fine = nn.Conv2d(fine, channels, 1)
        self.coarse = nn.Conv2d(coarse, channels, 1)
        self.mix_coarse = Mix(channels, 5)
        self.mix = nn.Sequential(Mix(channels, 3), Mix(channels, 3))
        self.project = nn.Conv2d(channels, channels, 1)
        self.act = nn.ReLU6(inplace=True)
        self.out = nn.Conv2d(channels, outputs, 1)

    @property
    def attended(self) -> nn.Conv2d:
        """The convolution that the attended features go into."""
        return self.project

    def features(self, branches: Sequence[Tensor]) -> Tensor:
        """x [B, K, H/8, W/8]; its size follows from the branches'."""
        coarse = self.mix_coarse(self.coarse(branches[-1]))
        if isinstance(self.fine, FusedPointwise):
            return self.mix(self.fine(branches[-2], coarse))
        return self.mix(self.fine(branches[-2]) + F.interpolate(coarse, scale_factor=2.0, mode="nearest"))

    def pool(self, branches: Sequence[Tensor], size: tuple[int, int] | None = None) -> tuple[Tensor, Tensor]:
        """g [B, K], and the features it was pooled from."""
        x = self.features(branches)
        return x.mean((2, 3)), x

    def forward(
        self, branches: Sequence[Tensor], attention: Tensor | None, size: tuple[int, int], x: Tensor | None
    ) -> Tensor:
        """Density [B, outputs, H/8, W/8] before `Network.unscale`, float32. The arguments are `AttendedHead.forward`'s."""
        if x is None:
            x = self.features(branches)
        if attention is not None:
            x = ops.reweight(x, attention)
        x = self.act(self.project(x))
        if isinstance(self.out, FusedPointwise):
            return self.out(x)
        with torch.autocast(x.device.type, enabled=False):  # bfloat16 would round every cell's count to 3 digits
            return self.out(x.to(self.out.weight.dtype))
