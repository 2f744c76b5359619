"""The VGG19 regressor of Bayesian loss (Ma et al., ICCV 2019) and DM-Count (Wang et al., NeurIPS 2020)."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from .published import VGG, PublishedNetwork, initialise, register_network, scaled


class Regressor(nn.Module):
    """Twice the size, then two 3x3 convolutions and a 1x1: 512 features at 1/16 -> density at 1/8.

    ``align_corners`` puts the upsampled cells by the size of the whole image, which is why no tile passes here.
    """

    def __init__(self, outputs: int, width: float = 1.0) -> None:
        super().__init__()
        features, middle, last = scaled((512, 256, 128), width)
        self.layers = initialise(
            nn.Sequential(
                nn.Conv2d(features, middle, 3, padding=1),
                nn.ReLU(inplace=True),
                nn.Conv2d(middle, last, 3, padding=1),
                nn.ReLU(inplace=True),
                nn.Conv2d(last, outputs, 1),
            ),
            None,
        )

    def forward(self, x: Tensor) -> Tensor:
        """[B, 512, h, w] -> [B, outputs, 2h, 2w]"""
        return self.layers(F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=True))


@register_network("the VGG19 regressor of Bayesian loss and DM-Count")
class VGG19Regressor(PublishedNetwork):
    """VGG19 and a regressor: 21,499,457 parameters, density at 1/8. Written from the papers.

    Bayesian loss takes the output's absolute value (``link="abs"``), DM-Count a ReLU. An attention weighs VGG19's 512
    features before the regressor. The arguments are `PublishedNetwork`'s.
    """

    network, cell, pretrained = "vgg19", 8, "vgg19"

    @classmethod
    def build(cls, outputs: int, width: float) -> tuple[Any, nn.Module]:
        """See `PublishedNetwork.build`."""
        return VGG("vgg19", width), Regressor(outputs, width)
