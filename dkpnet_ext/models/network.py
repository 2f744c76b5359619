"""Images to density maps: what every system shares below its head. No tiles, no picture formats, no files."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .backbones import create_backbone, load_backbone_weights, same_dtype
from .checks import check_choice, check_names, check_number
from .folding import fold_batch_norms
from .fpn import FPNHead
from .head import AttendedHead
from .zero_inflated import OUTPUTS, zero_inflated

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

Backbone = TypeVar("Backbone", bound=nn.Module)
Link = Literal["relu", "exp", "abs", "zip"]
_EXPECTED, _CAP = -3.0, 3.0  # log of an untrained network's heads per 8 x 8 pixels, and of the most that it can say


def outputs_of(link: Link) -> int:
    """Channels of a head's output under a link."""
    return OUTPUTS if link == "zip" else 1


class CounterOutput(NamedTuple):
    """A batch's result. With N > 1 latent samples in training, density and attention have N * B rows."""

    density: Tensor  # [B, 1, ceil(H / stride), ceil(W / stride)], heads per cell
    attention: Tensor | None = None  # [B, K]
    mu: Tensor | None = None  # [B, d]
    logvar: Tensor | None = None  # [B, d]
    kl: Tensor | None = None  # [B], Eq. 3
    lse: Tensor | None = None  # [B], Eq. 6
    logdet2: Tensor | None = None  # [B], Eq. 7
    domain_logits: Tensor | None = None  # [B, C], multi-branch only
    cells: Tensor | None = None  # [B, OUTPUTS, h, w], in training under the link zip only, see `zero_inflated`


class Decision(NamedTuple):
    """What the pooled features of whole images decide for all of their cells; the names are `CounterOutput`'s."""

    attention: Tensor | None = None  # [B, K]
    mu: Tensor | None = None  # [B, d]
    logvar: Tensor | None = None  # [B, d]
    domain_logits: Tensor | None = None  # [B, C]


class Network(nn.Module):
    """Normalisation, padding and backbone, and the three steps from features to density that a system fills in.

    Args:
        backbone: a timm name, of which ``hrnet_*`` is truncated after stage 3; or a network of its own with ``name``,
            ``reductions`` and ``channels``.
        channels: K, width after the neck.
        domains: names of the domains, in label order.
        out_stride: pixels per density cell and axis, 2, 4 or 8 (of a network of its own 1, too).
        density_scale: the head predicts density times this; `unscale` divides by it.
        link: from the head's output to density, ``relu``, ``exp``, ``abs`` or ``zip``, see `unscale`.
        fold_norms: the backbone's batch norms are part of its convolutions, whose weights and biases are trained.
        min_side, max_side: limits in pixels that images were resized to for training; evaluation keeps to them.

    Raises:
        ValueError: an argument of another type or out of its range.
        UserError: a backbone that timm does not have.
    """

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(
        self,
        backbone: str | nn.Module,
        *,
        channels: int,
        domains: Sequence[str],
        out_stride: int,
        density_scale: float,
        link: Link,
        fold_norms: bool,
        min_side: int,
        max_side: int,
    ) -> None:
        super().__init__()
        own = isinstance(backbone, nn.Module)
        if not isinstance(backbone, str | nn.Module):
            raise ValueError(f"backbone is {backbone!r}; a name of timm is expected")
        check_names("domains", domains)
        check_number("channels", channels, 1, 8192)
        check_number("density_scale", density_scale, 1e-6, 1e6, whole=False)
        check_number("min_side", min_side, 1, 100_000)
        check_number("max_side", max_side, min_side, 100_000)
        check_choice("out_stride", out_stride, (1, 2, 4, 8) if own else (2, 4, 8))
        check_choice("link", link, get_args(Link))
        check_choice("fold_norms", fold_norms, (False, True))
        self.backbone_name = backbone if isinstance(backbone, str) else str(backbone.name)
        self.backbone: Any = create_backbone(backbone) if isinstance(backbone, str) else backbone
        self.channels, self.out_stride = channels, out_stride
        self.domains, self.density_scale = tuple(domains), density_scale
        self.link, self.outputs, self.fold_norms = link, outputs_of(link), fold_norms
        self.min_side, self.max_side = min_side, max_side
        if fold_norms:
            self.backbone = _folded(self.backbone)
        self.register_buffer("pixel_mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1), persistent=False)

    @property
    def multiple(self) -> int:
        """Pixels that height and width are padded to a multiple of."""
        return getattr(self.backbone, "multiple", max(self.backbone.reductions))  # an engine's features may all be fine

    def load_backbone(self, weights: str | Path) -> None:
        """Load ImageNet weights into the backbone: ``"imagenet"`` or a file (see `create_backbone`)."""
        if self.fold_norms:
            self.backbone = _folded(create_backbone(self.backbone_name, weights))
        else:
            load_backbone_weights(self.backbone, self.backbone_name, weights)

    def features(self, images: Tensor) -> tuple[list[Tensor], tuple[int, int], tuple[int, int]]:
        """Branches of images: the backbone's, of what `normalised` returns; the rest as there."""
        x, padded, size = self.normalised(images)
        return same_dtype(self.backbone(x)), padded, size

    def normalised(self, images: Tensor) -> tuple[Tensor, tuple[int, int], tuple[int, int]]:
        """Normalise images and pad them to the backbone's stride.

        Args:
            images: uint8 or float in [0, 1], RGB, [B, 3, H, W], any H and W.

        Returns:
            the images, the padded output size and the true output size (ceil(H / stride), ceil(W / stride)). A backbone that
            `reads_bytes` (see `blocks.read_bytes`) gets images of bytes as they are.

        Raises:
            ValueError: another shape or dtype; floats that are not in [0, 1].
        """
        if images.ndim != 4 or images.shape[1] != 3 or 0 in images.shape[2:]:
            raise ValueError(f"images must be [B, 3, H, W], got {list(images.shape)}")
        height, width = images.shape[-2:]
        multiple, stride = self.multiple, self.out_stride
        pad_h, pad_w = -height % multiple, -width % multiple
        padded = ((height + pad_h) // stride, (width + pad_w) // stride)
        size = (-(-height // stride), -(-width // stride))
        if images.dtype == torch.uint8 and getattr(self.backbone, "reads_bytes", False):
            return images, padded, size
        images = self.normal(images)
        if pad_h or pad_w:
            images = F.pad(images, (0, pad_w, 0, pad_h))  # zero is the mean colour
        # The convolutions take the memory format of their input; channels_last is chosen by model.to(...).
        if _is_channels_last(self.backbone):
            images = images.contiguous(memory_format=torch.channels_last)
        return images, padded, size

    def normal(self, images: Tensor) -> Tensor:
        """Images [B, 3, H, W], uint8 or float in [0, 1], less ImageNet's mean, over its standard deviation."""
        if images.dtype == torch.uint8:
            return images.to(self.pixel_mean.dtype, copy=True).div_(255).sub_(self.pixel_mean).div_(self.pixel_std)
        _check_range(images)
        return (images.to(self.pixel_mean.dtype) - self.pixel_mean) / self.pixel_std

    def unscale(self, output: Tensor) -> Tensor:
        """Density in heads per cell from the head's output: the link, then the scale.

        A density is never negative. ``relu`` is the authors' released baseline's; in training it leaks 1 %, or a head that
        once fell below zero everywhere would stay there. ``exp`` makes the output the logarithm of a density, which is
        positive and whose errors are relative: the link of Poisson regression. An output of zero is 0.05 heads per 8 x 8
        pixels, and 20 are the most. ``abs`` is the Bayesian loss's. ``zip`` takes `OUTPUTS` channels, see `zero_inflated`.
        """
        if self.link == "zip":
            return zero_inflated(output).density / self.density_scale
        if self.link == "abs":
            return output.abs() / self.density_scale
        if self.link == "exp":
            cells = 2 * math.log(self.out_stride / 8)
            output = output.to(torch.promote_types(output.dtype, torch.float32))
            return ((output + _EXPECTED).clamp(max=_CAP) + cells).exp() / self.density_scale
        return F.leaky_relu(output, 0.01 if self.training else 0.0) / self.density_scale

    def respond(self, output: Tensor, size: tuple[int, int], **others: Tensor | None) -> CounterOutput:
        """What a batch gives: the head's output cut to ``size``, as a density, and ``others`` of `CounterOutput`."""
        output = output[..., : size[0], : size[1]]
        cells = output if self.link == "zip" and self.training else None
        return CounterOutput(self.unscale(output), cells=cells, **others)

    def forward(self, images: Tensor, labels: Tensor | None = None, batch_offset: int = 0) -> CounterOutput:
        """Count a batch.

        Args:
            images: uint8 or float in [0, 1], RGB, [B, 3, H, W], any size.
            labels: int64 [B], the images' domains; without them the model just counts.
            batch_offset: index of the batch's first image in the global batch of all processes (for the noise).
        """
        raise NotImplementedError

    @property
    def last_layers(self) -> tuple[str, ...]:
        """How the names of the layers in `pooling_head` begin that give the output: they belong to its link."""
        return "conv3.", "out."

    @property
    def pooling_head(self) -> AttendedHead | FPNHead:
        """The head whose neck gives the pooled features."""
        raise NotImplementedError

    def decide(self, pooled: Tensor) -> Decision:
        """What the pooled features [B, K] of whole images say to the head, in evaluation."""
        raise NotImplementedError

    def decode(self, branches: list[Tensor], decision: Decision, size: tuple[int, int]) -> Tensor:
        """Density [B, 1, *size] in heads per cell from features and `decide`'s answer, for an image or a tile."""
        raise NotImplementedError


def _check_range(images: Tensor) -> None:
    """Refuse float images of another range, such as 0 to 255 or normalised ones; interpolation may overshoot [0, 1]."""
    if not images.is_floating_point():
        raise ValueError(f"images are {images.dtype}; uint8, or float in [0, 1], is expected")
    if torch.compiler.is_compiling() or not images.numel():  # a graph cannot depend on values
        return
    low, high = (float(value) for value in images.detach().aminmax())
    if not (low >= -0.5 and high <= 1.5):
        raise ValueError(f"float images range from {low:.4g} to {high:.4g}; [0, 1] is expected (or uint8)")


def _folded(backbone: Backbone) -> Backbone:
    """The backbone in training mode with its batch norms folded, biases trained too (PyTorch adds them without gradient)."""
    return fold_batch_norms(backbone).train().requires_grad_()


def _is_channels_last(backbone: nn.Module) -> bool:
    weight = next((p for p in backbone.parameters() if p.ndim == 4 and p.shape[2] > 1), None)
    if weight is None:  # an engine's weights are its own
        return False
    return weight.is_contiguous(memory_format=torch.channels_last) and not weight.is_contiguous()
