"""DSSINet: three sizes of the image share one VGG16 and pass messages (Liu et al., ICCV 2019)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import UserError
from .backbones import load_backbone_weights
from .published import VGG, VGG_WIDTHS, PublishedNetwork, deviation, initialise, register_network, scaled

_ROUNDS = 2
_BLOCKS = ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21))  # VGG16's convolutions by their index, between the poolings
_PRUNED = (24, 22, 0, 41, 51, 0, 108, 89, 111, 0, 184, 276, 228)  # channels of VGG16 in the authors' smaller network


class Messages(nn.Module):
    """Features of several sizes of the image refine each other: h_i = ReLU(h_i + PReLU(sum_j conv_ji(h_j))), twice.

    The paper's structured feature enhancement, a mean-field inference with shared weights in both rounds.
    """

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        self.conv = nn.ModuleDict(
            {
                f"{j}_{i}": nn.Conv2d(source, target, 1)
                for i, target in enumerate(channels)
                for j, source in enumerate(channels)
                if i != j
            }
        )
        self.act = nn.PReLU()

    def forward(self, states: list[Tensor]) -> list[Tensor]:
        """A list of [B, C_i, h, w] -> the same shapes."""
        n = len(states)
        for _ in range(_ROUNDS):
            received = [sum(self.conv[f"{j}_{i}"](states[j]) for j in range(n) if j != i) for i in range(n)]
            states = [F.relu(state + self.act(message)) for state, message in zip(states, received, strict=True)]
        return states


class Pyramid(nn.Module):
    """The image at twice, once and half its size -> five densities, from 1/16 to the full image, each correcting the next.

    The features of block b of one size have the resolution of block b + 1 of the next larger size: these exchange messages.
    """

    name, reductions = "vgg16", (1,)

    def __init__(self, outputs: int, widths: Sequence[int], width: float) -> None:
        super().__init__()
        self.channels = (outputs,)
        self.front = VGG("vgg16", width, widths)
        a, b, c, d = (cast(nn.Conv2d, self.front.features[block[-1]]).out_channels for block in _BLOCKS)
        (middle,) = scaled((128,), width)
        # One for each convolution, as published: the two before a message, conv2_2's and conv3_3's, are never used.
        self.acts = nn.ModuleList(nn.PReLU() for block in _BLOCKS for _ in block)
        met = ((b, a), (c, b, a), (d, c, b), (d, c))  # features that meet, from the full image to 1/8
        self.messages = nn.ModuleList(Messages(channels) for channels in met)
        self.decoders = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(sum(these), middle, 1), nn.ReLU(inplace=True), nn.Conv2d(middle, outputs, 3, padding=1)
            )
            for these in ((d,), *met[::-1])
        )
        self.corrections = nn.ModuleList(nn.Conv2d(outputs, outputs, 3, padding=1) for _ in met)
        self.act = nn.PReLU()
        for part in (self.messages, self.corrections, self.decoders):
            initialise(part, deviation(width))

    def stages(self) -> list[list[nn.Module]]:
        """VGG16's."""
        return self.front.stages()

    def block(self, x: Tensor, number: int, last: bool = False) -> Tensor:
        """A block of VGG16 with the pooling before it; its last convolution without activation unless ``last``."""
        if number:
            x = F.max_pool2d(x, 2)
        start = sum(map(len, _BLOCKS[:number]))
        for i, index in enumerate(_BLOCKS[number]):
            x = self.front.features[index](x)
            if last or i + 1 < len(_BLOCKS[number]):
                x = self.acts[start + i](x)
        return x

    def forward(self, x: Tensor) -> list[Tensor]:
        """x [B, 3, H, W], sides multiples of 16 -> one [B, outputs, H, W]."""
        large = F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
        small = F.avg_pool2d(x, 2)  # what bilinear interpolation to half the size is
        a, b = self.messages[0]([self.block(self.block(large, 0, last=True), 1), self.block(x, 0)])
        gathered = [torch.cat([a, b], 1)]
        a, b, c = self.messages[1]([self.block(a, 2), self.block(b, 1), self.block(small, 0)])
        gathered.append(torch.cat([a, b, c], 1))
        a, b, c = self.messages[2]([self.block(a, 3), self.block(b, 2), self.block(c, 1)])
        gathered.append(torch.cat([a, b, c], 1))
        b, c = self.messages[3]([self.block(b, 3), self.block(c, 2)])
        gathered += [torch.cat([b, c], 1), self.block(c, 3, last=True)]
        density = self.act(self.decoders[0](gathered[-1]))
        steps = zip(self.decoders[1:], self.corrections, gathered[-2::-1], strict=True)
        for number, (decoder, correction, features) in enumerate(steps, start=1):
            larger = F.interpolate(density, scale_factor=2.0, mode="bilinear", align_corners=False)
            density = decoder(features) + correction(larger)
            if number < len(self.corrections):
                density = self.act(density)
        return [density]


@register_network("DSSINet: three sizes of the image share VGG16 and pass messages")
class DSSINet(PublishedNetwork):
    """DSSINet: 8,857,788 parameters, cells of one pixel. Constants from the authors' code (MIT).

    No attention: three sizes of the image meet at five resolutions, and no one feature map lies before the output. Nothing
    in it is global: large images are tiled whole. The arguments are `PublishedNetwork`'s; the paper's loss, dilated
    multi-scale structural similarity, is ``--loss ssim``.
    """

    network, cell, attends = "dssinet", 1, False
    pretrained: ClassVar[str | None] = "vgg16"
    widths: ClassVar[tuple[int, ...]] = VGG_WIDTHS["vgg16"]

    @classmethod
    def build(cls, outputs: int, width: float) -> tuple[Any, nn.Module]:
        """See `PublishedNetwork.build`."""
        return Pyramid(outputs, cls.widths, width), nn.Identity()

    @property
    def multiple(self) -> int:
        """Half the image is pooled three times."""
        return 16

    def load_backbone(self, weights: str | Path) -> None:
        """See `PublishedNetwork.load_backbone`."""
        if self.pretrained is None or self.arguments["width"] != 1:
            raise UserError(f"system {self.network}: has no pretrained weights; use --weights None")
        load_backbone_weights(self.backbone.front, "vgg16", weights)


@register_network("DSSINet with a pruned VGG16, from scratch")
class PrunedDSSINet(DSSINet):
    """DSSINet whose VGG16 the authors pruned: 1,785,602 parameters. They publish an MAE of 61.16 on ShanghaiTech A.

    Theirs began with the weights that pruning left; here it begins with random ones. The arguments are
    `PublishedNetwork`'s.
    """

    network, pretrained = "dssinet-pruned", None
    widths = _PRUNED
