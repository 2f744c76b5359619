"""CSRNet: VGG16's first ten convolutions and six dilated ones (Li, Zhang and Chen, CVPR 2018)."""

from __future__ import annotations

from typing import Any

from torch import nn

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


@register_network("CSRNet: VGG16 and dilated convolutions")
class CSRNet(PublishedNetwork):
    """CSRNet, back end B: 16,263,489 parameters, density at 1/8. Written from the paper (arXiv 1802.10062).

    An attention weighs the 512 features of VGG16 before the dilated convolutions. The arguments are
    `PublishedNetwork`'s. The paper trains with SGD 1e-7, momentum 0.95, on whole images.
    """

    network, cell, pretrained = "csrnet", 8, "vgg16"

    @classmethod
    def build(cls, outputs: int, width: float) -> tuple[Any, nn.Module]:
        """See `PublishedNetwork.build`."""
        front = VGG("vgg16", width)
        (last,) = scaled((64,), width)
        output = initialise(nn.Conv2d(last, outputs, 1), deviation(width))
        return front, named(backend=dilated(*front.channels, width), output=output)
