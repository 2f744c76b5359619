"""Inverted residuals of a network, for inference on the CPU: each in one pass over memory (`ops.inverted_residual`)."""

from __future__ import annotations

from typing import Any

import torch
from timm.layers import Conv2dSame
from timm.models._efficientnet_blocks import DepthwiseSeparableConv, InvertedResidual
from torch import Tensor, nn

from .. import ops
from .backbones import TimmFeatures
from .convolutions import ACTIVATIONS, padding_of
from .fpn import Mix
from .network import Network


class FusedBlock(nn.Module):
    """project(act(depthwise(act(expand(x))))) [+ x], by `ops.inverted_residual`.

    Args:
        expand, depthwise, project: what it replaces; their parameters are shared, and read once.
        activation: "relu" or "relu6"; residual: x is added to the result.

    Attributes:
        multiple, table: of a network's first block that normalises images of bytes, see `read_bytes`.
    """

    is_whole = True  # for `folding.Tracer`

    def __init__(
        self, expand: nn.Conv2d | None, depthwise: nn.Conv2d, project: nn.Conv2d, activation: str, residual: bool
    ) -> None:
        super().__init__()
        self.expand, self.depthwise, self.project = expand, depthwise, project
        self.activation, self.residual = activation, residual
        self.weights: ops.InvertedResidual | None = None
        self.multiple = 1
        self.table: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """x [B, C, H, W] -> [B, E, H', W']"""
        expand, depthwise, project = self.expand, self.depthwise, self.project
        if self.weights is None or self.weights.project[0].device != project.weight.device:
            self.weights = ops.InvertedResidual(
                None if expand is None else (expand.weight, expand.bias), (depthwise.weight, depthwise.bias),
                (project.weight, project.bias), expand_stride=1 if expand is None else expand.stride[0],
                stride=depthwise.stride[0], activation=self.activation, residual=self.residual,
                table=self.table,
            )  # fmt: skip
        size, first = [side + -side % self.multiple for side in x.shape[2:]], (0, 0, 0, 0)
        more = size[0] - x.shape[2], size[1] - x.shape[3]
        if expand is not None:
            first = padding_of(expand, size, isinstance(expand, Conv2dSame))
            kernel, stride = expand.kernel_size[0], expand.stride[0]
            size = [
                (side + p - kernel) // stride + 1
                for side, p in zip(size, (first[2] + first[3], first[0] + first[1]), strict=True)
            ]
            first = (first[0], first[1] + more[1], first[2], first[3] + more[0])
        padding = padding_of(depthwise, size, isinstance(depthwise, Conv2dSame))
        return ops.inverted_residual(x, self.weights, padding, first)


def fuse_blocks(model: nn.Module) -> None:
    """Replace, in place, the inverted residuals and depthwise separable convolutions of timm, and `Mix`, by `FusedBlock`.

    Batch norms must be folded. Blocks with squeeze-and-excitation, other activations than ReLU and ReLU6, or other kernels
    and strides than the operator's stay. timm's first convolution is joined with a first block that has no expansion.
    """
    for name, module in list(model.named_modules()):
        fused = _fused(module)
        if fused is not None:
            model.set_submodule(name, fused)
    for module in model.modules():
        _join_stem(module)


def read_bytes(model: Network) -> None:
    """Let the backbone's first block normalise and pad images of bytes as it reads them, in place, where it can.

    `Network.normalised` then leaves them as they are. What every byte stands for is computed once.
    """
    net: Any = model.backbone.net if isinstance(model.backbone, TimmFeatures) else None
    if not isinstance(getattr(net, "conv_stem", None), nn.Identity):  # `_join_stem` did not join it
        return
    grey = torch.arange(256, dtype=torch.uint8).expand(3, 256)[None, :, None]  # [1, 3, 1, 256]
    first: FusedBlock = net.blocks[0][0]
    first.table = model.normal(grey)[0, :, 0].detach()
    first.multiple, model.backbone.reads_bytes = model.multiple, True


def _fused(module: nn.Module) -> FusedBlock | None:
    block: Any = module
    if isinstance(block, Mix):
        return _block(None, block.depthwise, block.pointwise, [block.act], residual=True)
    if type(block) not in (InvertedResidual, DepthwiseSeparableConv) or block.conv_s2d is not None:
        return None
    expands = isinstance(block, InvertedResidual)
    last_norm = block.bn3 if expands else block.bn2
    if not all(isinstance(part, nn.Identity) for part in (block.aa, block.se, last_norm)):
        return None
    if expands:
        expand, acts, project = block.conv_pw, [block.bn1, block.bn2], block.conv_pwl
    else:
        expand, acts, project = None, [block.bn1], block.conv_pw
    return _block(expand, block.conv_dw, project, acts, residual=block.has_skip)


def _block(expand: Any, depthwise: Any, project: Any, acts: list[nn.Module], residual: bool) -> FusedBlock | None:
    """A block of these convolutions, or None where the operator does not do them."""
    kinds = {type(act) for act in acts}
    convolutions = [conv for conv in (expand, depthwise, project) if conv is not None]
    if len(kinds) > 1 or not kinds <= ACTIVATIONS.keys() or not all(_plain(conv) for conv in convolutions):
        return None
    if any(conv.groups > 1 or conv.kernel_size[0] > 1 or conv.stride[0] > 1 for conv in (expand, project) if conv):
        return None
    fits = depthwise.kernel_size[0] in (3, 5) and depthwise.stride[0] in (1, 2)
    if not fits or not depthwise.groups == depthwise.in_channels == depthwise.out_channels:
        return None
    return FusedBlock(expand, depthwise, project, ACTIVATIONS[kinds.pop()], residual)


def _plain(conv: Any) -> bool:
    """A convolution with a square kernel, one stride, zeros around, and fewer of them than the kernel is wide."""
    if type(conv) not in (nn.Conv2d, Conv2dSame) or conv.padding_mode != "zeros" or isinstance(conv.padding, str):
        return False
    square = conv.kernel_size[0] == conv.kernel_size[1] and conv.stride[0] == conv.stride[1]
    return bool(square and conv.dilation == (1, 1) and max(map(int, conv.padding)) < conv.kernel_size[0])


def _join_stem(module: nn.Module) -> None:
    """Let the first block of timm's EfficientNet-like networks expand the image itself, by the network's first convolution."""
    net: Any = module
    if not isinstance(getattr(net, "conv_stem", None), nn.Conv2d) or 0 in getattr(net, "_stage_out_idx", (0,)):
        return
    first = net.blocks[0][0]
    fits = isinstance(first, FusedBlock) and first.expand is None and not first.residual and net.conv_stem.groups == 1
    if fits and _plain(net.conv_stem) and ACTIVATIONS.get(type(net.bn1)) == first.activation:
        # `expand` comes after `depthwise`, by which `network` sees that the image's layout need not be changed.
        first.expand, net.conv_stem, net.bn1 = net.conv_stem, nn.Identity(), nn.Identity()
