"""Networks of the literature that bring their own convolutions: what they share.

Such a network is a backbone, which looks at every place alike, and a head, which turns the backbone's features into
density. SE, VA and InVA weigh the features between the two.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

import torch
from torch import Tensor, nn

from .. import ops
from ..errors import UserError
from . import tiling
from .attention import SqueezeExcitation, VariationalAttention
from .backbones import load_backbone_weights
from .checks import check_choice, check_number
from .counter import CrowdCounter
from .network import CounterOutput, Link, outputs_of
from .registry import register

Attention = Literal["none", "se", "va", "inva"]
WIDTHS = (1 / 16, 1.0)
"""Lowest and highest share of the published channels."""
VGG_WIDTHS: dict[str, tuple[int, ...]] = {  # widths of the 3x3 convolutions; 0 is a 2x2 maximum pooling
    "vgg16": (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512),
    "vgg19": (64, 64, 0, 128, 128, 0, 256, 256, 256, 256, 0, 512, 512, 512, 512, 0, 512, 512, 512, 512),
}


class PublishedNetwork(CrowdCounter):
    """Base of the networks with convolutions of their own. A subclass fills in `build` and the class attributes.

    Args:
        attention: ``none``, or what weighs the backbone's features: ``se``, ``va``, ``inva``, as in `DKPNet`.
        num_domains, num_sub, latent_dim, num_samples: of the attention, see `DKPNet`.
        width: share of the published channels, for small machines; pretrained weights need 1.
        The others are `Network`'s.

    Raises:
        ValueError: an argument of another type or out of its range.
    """

    network: ClassVar[str]
    """The system's name without attention."""
    cell: ClassVar[int]
    """Pixels per density cell and axis, which the network fixes."""
    pretrained: ClassVar[str | None] = None
    """timm's name of the network whose ImageNet weights the backbone takes."""
    added: ClassVar[Mapping[str, Any]] = {**CrowdCounter.added, "width": 1.0}
    attends: ClassVar[bool] = True
    """Whether there are features between backbone and head that an attention can weigh."""
    exports: ClassVar[bool] = True
    """Whether its operations can be traced for any image size."""

    def __init__(
        self,
        attention: Attention = "none",
        num_domains: int = 0,
        num_sub: int = 1,
        latent_dim: int = 128,
        num_samples: int = 1,
        domains: Sequence[str] = (),
        density_scale: float = 1.0,
        link: Link = "relu",
        min_side: int = 416,
        max_side: int = 2048,
        width: float = 1.0,
    ) -> None:
        check_number("width", width, *WIDTHS, whole=False)
        backbone, head = self.build(outputs_of(link), width)
        channels = backbone.channels[-1]
        super().__init__(
            backbone, channels=channels, domains=domains, out_stride=self.cell, density_scale=density_scale,
            link=link, fold_norms=False, min_side=min_side, max_side=max_side,
        )  # fmt: skip
        check_choice("attention", attention, ("none", "se", "va", "inva") if self.attends else ("none",))
        check_number("num_domains", num_domains, 0, 1000)
        check_number("num_sub", num_sub, 1, 64)
        check_number("latent_dim", latent_dim, 1, 4096)
        check_number("num_samples", num_samples, 1, 1000)
        self.head = head
        self.attention: SqueezeExcitation | VariationalAttention | None = None
        if attention == "se":
            self.attention = SqueezeExcitation(channels)
        elif attention != "none":
            num_domains = num_domains or len(domains)
            if num_domains < 1:
                raise ValueError(f"attention {attention!r} needs num_domains or the domains' names")
            if attention == "va" and num_sub != 1:
                raise ValueError(f"attention 'va' has one component per domain; num_sub {num_sub} is 'inva'")
            self.attention = VariationalAttention(channels, latent_dim, num_domains, num_sub, num_samples)

    @classmethod
    def build(cls, outputs: int, width: float) -> tuple[Any, nn.Module]:
        """The backbone and the head, which has ``outputs`` channels, with random weights.

        All others have ``width`` times the published channels, see `scaled`.

        The backbone has ``name``, ``reductions`` (r,), ``channels`` (C,) and ``stages()`` (see `backbones.stages`; empty
        where nothing is pretrained), and gives a list of one [B, C, H/r, W/r];
        the head makes [B, outputs, H/cell, W/cell] of it.
        """
        raise NotImplementedError

    @property
    def system(self) -> str:
        """The network's name, with ``-se``, ``-va`` or ``-inva`` where there is attention."""
        attention = self.arguments["attention"]
        return self.network if attention == "none" else f"{self.network}-{attention}"

    @property
    def last_layers(self) -> tuple[str, ...]:
        """See `Network.last_layers`: here the last convolution; none where the backbone gives the density."""
        names = [name for name, part in self.head.named_modules() if isinstance(part, nn.Conv2d)]
        return tuple(f"{name}." if name else "" for name in names[-1:])

    @property
    def pooling_head(self) -> Any:
        """The head: what a second stage takes over from the first, beside the backbone."""
        return self.head

    def load_backbone(self, weights: str | Path) -> None:
        """Load ImageNet weights into the backbone, see `Network.load_backbone`.

        Raises:
            UserError: a network that is trained from scratch; see `load_backbone_weights`.
        """
        if self.pretrained is None:
            raise UserError(f"system {self.network}: has no pretrained weights; use --weights None")
        if self.arguments["width"] != 1:
            raise UserError(
                f"system {self.network}: a part of its channels has no pretrained weights; use --weights None"
            )
        load_backbone_weights(self.backbone, self.pretrained, weights)

    def forward(self, images: Tensor, labels: Tensor | None = None, batch_offset: int = 0) -> CounterOutput:
        """As `Network.forward`; with labels the regularisers of variational attention are computed, too."""
        (features,), _, size = self.features(images)
        return self.attended(features, size, labels, batch_offset)

    def tiled(self, pixels: Tensor) -> CounterOutput:
        """One large image uint8 [3, H, W]: the backbone's features tile by tile, the head on the whole of them.

        An attention and a head that look at the whole image thus see the whole image.
        """
        (features,) = tiling.assemble(self, pixels)
        height, width = (-(-side // self.out_stride) for side in pixels.shape[-2:])
        return self.attended(features, (height, width))

    def attended(
        self, features: Tensor, size: tuple[int, int], labels: Tensor | None = None, batch_offset: int = 0
    ) -> CounterOutput:
        """The output [B, 1, *size] for the backbone's features [B, C, H/r, W/r] of whole images."""
        if self.attention is None:
            return self.respond(self.head(features), size)
        att = self.attention(features.mean((2, 3)), labels, batch_offset=batch_offset)
        samples = att.attention.shape[0] // max(features.shape[0], 1)
        if samples > 1:  # every latent sample of an image meets the same features
            features = features.repeat(samples, 1, 1, 1)
        return self.respond(self.head(ops.reweight(features, att.attention)), size, **att._asdict())


Model = TypeVar("Model", bound=type[PublishedNetwork])


def register_network(about: str) -> Callable[[Model], Model]:
    """A class decorator that enters a network, and where it `attends` its forms with SE, VA and InVA (two stages)."""

    def enter(model: Model) -> Model:
        name, va = model.network, {"attention": "va", "num_sub": 1}
        model = register(name, about, {"attention": "none"})(model)
        if model.attends:
            model = register(f"{name}-se", f"{name} with squeeze-and-excitation", {"attention": "se"})(model)
            model = register(f"{name}-va", f"{name} with variational attention", va)(model)
            model = register(f"{name}-inva", f"{name}, both stages: VA, then InVA", va, {"attention": "inva"})(model)
        return model

    return enter


class VGG(nn.Module):
    """VGG's convolutions without batch norm (Simonyan and Zisserman, ICLR 2015), up to where density networks cut it.

    ``vgg16`` ends after conv4_3 at 1/8, ``vgg19`` after conv5_4 at 1/16; both have 512 channels. Parameters have
    timm's and torchvision's names.

    Args:
        name: ``vgg16`` or ``vgg19``; width: share of the channels.
        widths: channels of its convolutions in place of the published ones, 0 where a pooling is.
    """

    def __init__(self, name: str, width: float = 1.0, widths: Sequence[int] = ()) -> None:
        super().__init__()
        self.name, layers, channels = name, [], 3
        for target in scaled(widths or VGG_WIDTHS[name], width):
            if target:
                layers += [nn.Conv2d(channels, target, 3, padding=1), nn.ReLU(inplace=True)]
                channels = target
            else:
                layers.append(nn.MaxPool2d(2))
        self.reductions, self.channels = (2 ** VGG_WIDTHS[name].count(0),), (channels,)
        self.features = nn.Sequential(*layers)
        initialise(self, None)

    def stages(self) -> list[list[nn.Module]]:
        """The convolutions between the poolings."""
        blocks: list[list[nn.Module]] = [[]]
        for layer in self.features:
            blocks += [[]] if isinstance(layer, nn.MaxPool2d) else []
            blocks[-1].append(layer)
        return blocks

    def forward(self, x: Tensor) -> list[Tensor]:
        """x [B, 3, H, W] -> one [B, 512, H/r, W/r]."""
        return [self.features(x)]


def scaled(widths: Sequence[int], width: float) -> tuple[int, ...]:
    """Numbers of channels times ``width``, at least 1; 0 stays 0."""
    return tuple(max(round(each * width), 1) if each else 0 for each in widths)


def dilated(channels: int, width: float, *, norm: bool = False) -> nn.Sequential:
    """CSRNet's back end B: six 3x3 convolutions of dilation 2, of 512, 512, 512, 256, 128 and 64 channels, with ReLU."""
    layers: list[nn.Module] = []
    for target in scaled((512, 512, 512, 256, 128, 64), width):
        layers.append(nn.Conv2d(channels, target, 3, padding=2, dilation=2))
        layers += [nn.BatchNorm2d(target), nn.ReLU(inplace=True)] if norm else [nn.ReLU(inplace=True)]
        channels = target
    return initialise(nn.Sequential(*layers), deviation(width))


def deviation(width: float) -> float:
    """Standard deviation of initial weights: 0.01, as published, for all channels; fewer have larger weights."""
    return 0.01 / width**0.5


def named(**modules: nn.Module) -> nn.Sequential:
    """A sequence whose parts have names."""
    return nn.Sequential(OrderedDict(modules))


Part = TypeVar("Part", bound=nn.Module)


def initialise(module: Part, deviation: float | None = 0.01) -> Part:
    """Set its convolutions, in place: weights normal with a standard deviation, by default the papers'; biases 0.

    Args:
        deviation: None takes He's, which keeps the features' scale through layers that no pretrained weights replace.
    """
    with torch.no_grad():
        for part in module.modules():
            if not isinstance(part, nn.Conv2d):
                continue
            if deviation is None:
                nn.init.kaiming_normal_(part.weight, nonlinearity="relu")
            else:
                nn.init.normal_(part.weight, 0, deviation)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
    return module
