"""CSRNet: VGG16's first ten convolutions and six dilated ones (Li, Zhang and Chen, CVPR 2018)."""

from __future__ import annotations

from typing import Any

from torch import nn

from .published import VGG, PublishedNetwork, dilated, initialise, named, register_network


@register_network("CSRNet: VGG16 and dilated convolutions")
class CSRNet(PublishedNetwork):
    """CSRNet, back end B: 16,263,489 parameters, density at 1/8. Written from the paper (arXiv 1802.10062).

    An attention weighs the 512 features of VGG16 before the dilated convolutions. The arguments are
    `PublishedNetwork`'s. The paper trains with SGD 1e-7, momentum 0.95, on whole images.
    """

    network, cell, pretrained = "csrnet", 8, "vgg16"

    @classmethod
    def build(cls, outputs: int) -> tuple[Any, nn.Module]:
        """See `PublishedNetwork.build`."""
        return VGG("vgg16"), named(backend=dilated(512), output=initialise(nn.Conv2d(64, outputs, 1)))
