"""SFCN: ResNet-101, dilated convolutions and a spatial encoder (Wang, Gao, Lin and Yuan, CVPR 2019)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .published import PublishedNetwork, deviation, dilated, initialise, named, register_network, scaled


class ResNet101(nn.Module):
    """timm's ResNet-101 up to layer3, whose stride is 1: 1024 features at 1/8. Parameters have timm's names."""

    name, reductions = "resnet101", (8,)

    def __init__(self, width: float = 1.0) -> None:
        super().__init__()
        import timm

        widths = scaled((64, 128, 256, 512), width)  # of the stem's 64 channels timm takes no part
        net: Any = timm.create_model("resnet101", pretrained=False, num_classes=0, channels=widths)
        self.channels = (4 * widths[2],)
        net.layer3[0].conv2.stride = net.layer3[0].downsample[0].stride = (1, 1)
        for part in ("conv1", "bn1", "act1", "maxpool", "layer1", "layer2", "layer3"):
            self.add_module(part, getattr(net, part))

    def stages(self) -> list[list[nn.Module]]:
        """Stem and layers."""
        stem, layers = list(self.children())[:4], list(self.children())[4:]
        return [stem, *([layer] for layer in layers)]

    def forward(self, x: Tensor) -> list[Tensor]:
        """x [B, 3, H, W] -> one [B, 1024, H/8, W/8]."""
        for part in self.children():
            x = part(x)
        return [x]


class Sweep(nn.Module):
    """Messages along one axis, there and back: each row takes ReLU(conv(the row before)) in (SCNN, Pan et al., AAAI 2018).

    Args:
        axis: 2 passes them down and up, by a (1, 9) convolution; 3 right and left, by a (9, 1) one.
    """

    def __init__(self, channels: int, axis: int) -> None:
        super().__init__()
        kernel, padding = ((1, 9), (0, 4)) if axis == 2 else ((9, 1), (4, 0))
        self.axis, self.conv = axis, nn.Conv2d(channels, channels, kernel, padding=padding)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, h, w] -> the same shape; every cell may depend on every other one."""
        for _ in range(2):
            rows = list(x.split(1, self.axis))
            for i in range(1, len(rows)):
                rows[i] = rows[i] + F.relu(self.conv(rows[i - 1]))
            x = torch.cat(rows[::-1], self.axis)
        return x  # turned twice


@register_network("SFCN: ResNet-101, dilated convolutions and a spatial encoder")
class SFCN(PublishedNetwork):
    """SFCN: 38,596,801 parameters, predicts at 1/8 and repeats each value 8 x 8 times: cells of one pixel.

    arXiv 1903.03303; constants from the C^3 framework (MIT). An attention weighs ResNet-101's 1024 features before the
    dilated convolutions. The arguments are `PublishedNetwork`'s. Published with Adam 1e-5 and `density_scale` 100.
    """

    network, cell, pretrained = "sfcn", 1, "resnet101"
    exports = False  # its sweeps are loops over the rows of an image

    @classmethod
    def build(cls, outputs: int, width: float) -> tuple[Any, nn.Module]:
        """See `PublishedNetwork.build`."""
        backbone, (last,) = ResNet101(width), scaled((64,), width)
        head = named(
            backend=dilated(*backbone.channels, width),
            vertical=initialise(Sweep(last, 2), deviation(width)),
            horizontal=initialise(Sweep(last, 3), deviation(width)),
            output=initialise(nn.Conv2d(last, outputs, 1), deviation(width)),
            upsample=nn.Upsample(scale_factor=8, mode="nearest"),
        )
        return backbone, head
