"""Faster training of convolutions on the CPU: batch norms folded, our operators in place of PyTorch's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar, cast

import torch
from timm.layers import Conv2dSame
from timm.layers.padding import get_same_padding
from torch import Tensor, fx, nn

from ..ops import Projection, depthwise, pointwise, projection
from .folding import Tracer, fold_batch_norms

Network = TypeVar("Network", bound=nn.Module)

ACTIVATIONS: dict[type[nn.Module], str] = {nn.ReLU: "relu", nn.ReLU6: "relu6"}


def padding_of(conv: nn.Conv2d, size: Sequence[int], same: bool) -> tuple[int, int, int, int]:
    """(left, right, top, bottom) of an input [.., H, W]; ``same``: TensorFlow's padding, which depends on its size."""
    if not same:
        top, left = map(int, conv.padding)
        return left, left, top, top
    height, width = (get_same_padding(side, conv.kernel_size[0], conv.stride[0], 1) for side in size)
    return width // 2, width - width // 2, height // 2, height - height // 2


class FastConvolution(nn.Conv2d):
    """A depthwise or 1x1 convolution and the activation after it, by `ops.depthwise` or `ops.pointwise`.

    Args:
        conv: what it replaces; its parameters are shared, under the same names.
        activation: "none", "relu" or "relu6".
    """

    def __init__(self, conv: nn.Conv2d, activation: str) -> None:
        kernel, stride, padding = cast(Any, (conv.kernel_size, conv.stride, conv.padding))
        super().__init__(
            conv.in_channels, conv.out_channels, kernel, stride, padding, groups=conv.groups,
            bias=conv.bias is not None, device="meta",
        )  # fmt: skip
        self.weight, self.bias = conv.weight, conv.bias
        self.activation = activation
        self.same = isinstance(conv, Conv2dSame)

    def forward(self, x: Tensor) -> Tensor:
        """As the convolution it replaces, then the activation."""
        if self.groups == 1:
            return pointwise(x, self.weight, self.bias, self.activation)
        return depthwise(
            x, self.weight, self.bias, self.stride[0], padding_of(self, x.shape[2:], self.same), self.activation
        )

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, activation={self.activation}"


class FusedPointwise(nn.Module):
    """A 1x1 convolution for inference, by `ops.projection`, with what comes after it.

    Args:
        conv: what it replaces; its parameters are shared, and read once.
        activation: "none", "relu" or "relu6"; dtype: of the result, by default x's.
    """

    is_whole = True  # for `folding.Tracer`

    def __init__(self, conv: nn.Conv2d, activation: str = "none", dtype: torch.dtype | None = None) -> None:
        super().__init__()
        self.conv, self.activation, self.dtype = conv, activation, dtype
        self.weights: Projection | None = None

    def forward(self, x: Tensor, coarse: Tensor | None = None) -> Tensor:
        """x [B, C, H, W], coarse [B, D, H / 2, W / 2] -> act(conv(x) + coarse, each value for 2 x 2 cells) [B, D, H, W]"""
        conv = self.conv
        if self.weights is None or self.weights.weight.device != conv.weight.device:
            self.weights = Projection(conv.weight, conv.bias, self.activation, self.dtype)
        return projection(x, self.weights, coarse)


def fold_for_training(model: Network) -> Network:
    """A copy in which each batch norm that follows a convolution is part of it, in training mode.

    The statistics become constants, once; weight and bias of the convolutions are trained instead. For fine-tuning
    pretrained networks: a step needs neither the statistics of its batch nor the passes that apply them.
    """
    folded = fold_batch_norms(model).train()
    for module in folded.modules():
        if isinstance(module, nn.Conv2d) and module.bias is not None:
            module.bias.requires_grad_(module.weight.requires_grad)  # PyTorch leaves biases that it adds without
    return folded


def use_fast_convolutions(model: Network) -> Network:
    """Replace, in place, the convolutions that `ops.depthwise` and `ops.pointwise` do, each with the ReLU or ReLU6 after it.

    Depthwise convolutions of kernels 3 and 5 at strides 1 and 2, with symmetric or TensorFlow's padding, and 1x1
    convolutions; what does not fit stays. Parameters and their names stay, too. Run it on channels_last images.

    Args:
        model: whatever torch.fx can trace, such as the backbones of this package, with batch norms folded: a batch norm
            between a convolution and its activation keeps the two apart.

    Returns:
        The model.
    """
    graph, modules = Tracer().trace(model), dict(model.named_modules())
    calls = [node.target for node in graph.nodes if node.op == "call_module"]
    for node in list(graph.nodes):
        name = str(node.target)
        conv = modules[name] if node.op == "call_module" else None
        if not isinstance(conv, nn.Conv2d) or not _fits(conv):
            continue
        after, kind = _activation(node, modules, calls) if calls.count(name) == 1 else (None, "none")
        if after is not None:
            model.set_submodule(after, nn.Identity())
        model.set_submodule(name, FastConvolution(conv, kind))
    return model


def _activation(node: fx.Node, modules: dict[str, nn.Module], calls: list) -> tuple[str | None, str]:
    """(name, kind) of the activation that alone sees the convolution's result, through Identity modules."""
    while len(node.users) == 1:
        (node,) = node.users
        name = str(node.target)
        module = modules[name] if node.op == "call_module" else nn.Module()
        if type(module) in ACTIVATIONS and calls.count(name) == 1:
            return name, ACTIVATIONS[type(module)]
        if not isinstance(module, nn.Identity):
            break
    return None, "none"


def _fits(conv: nn.Conv2d) -> bool:
    if type(conv) not in (nn.Conv2d, Conv2dSame) or conv.padding_mode != "zeros" or conv.dilation != (1, 1):
        return False
    kernel, stride, padding = conv.kernel_size, conv.stride, conv.padding
    if isinstance(padding, str) or kernel[0] != kernel[1] or stride[0] != stride[1]:
        return False
    if conv.groups == 1:
        return kernel == (1, 1) and stride == (1, 1) and padding == (0, 0)
    fits = kernel[0] in (3, 5) and stride[0] in (1, 2) and max(map(int, padding)) < kernel[0]
    return fits and conv.groups == conv.in_channels == conv.out_channels
