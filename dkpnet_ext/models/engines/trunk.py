"""The part of a model that an engine replaces: from the normalised image to the features that its head decodes.

That is the backbone, and of the `fpn` head the neck, which is not linear and belongs to the features. What decides for the
whole image (pooling, attention) and what decodes stays in Python, so that tiles, attention and regions do not know of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from ..convolutions import FastConvolution, use_fast_convolutions
from ..fpn import FPNHead, Mix
from ..network import Network


class Trunk(nn.Module):
    """Normalised, padded images [B, 3, H, W] -> features, one [B, channels[j], H / reductions[j], W / reductions[j]] each.

    Args:
        model: its backbone and neck are shared, not copied.
    """

    def __init__(self, model: Network) -> None:
        super().__init__()
        head = model.pooling_head
        self.backbone: Any = model.backbone
        self.neck = head if isinstance(head, FPNHead) else None
        self.name, self.multiple = model.backbone_name, model.multiple
        self.reductions = tuple(model.backbone.reductions) if self.neck is None else (model.out_stride,)
        self.channels = tuple(model.backbone.channels) if self.neck is None else (model.channels,)

    def forward(self, x: Tensor) -> list[Tensor]:
        """x [B, 3, H, W], H and W multiples of `multiple`."""
        branches = self.backbone(x)
        return list(branches) if self.neck is None else [self.neck.pool(branches)[1]]


class FPNTail(FPNHead):
    """What is left of an `FPNHead` once its neck belongs to the trunk: [B, K, H/8, W/8] -> density."""

    coarse_cells = 0  # the trunk has looked around

    def __init__(self, head: FPNHead) -> None:
        nn.Module.__init__(self)
        self.project, self.act, self.out = head.project, head.act, head.out

    def pool(self, branches: Sequence[Tensor], size: tuple[int, int] | None = None) -> tuple[Tensor, Tensor]:
        """As `FPNHead.pool`, of the trunk's features [x]."""
        (x,) = branches
        return x.mean((2, 3)), x


def use_fast_head(head: FPNHead) -> None:
    """Replace, in place, the convolutions of an `FPNHead` or `FPNTail` by ours, each with the activation after it."""
    for name, module in list(head.named_modules()):
        if isinstance(module, Mix):
            use_fast_convolutions(module)
        elif name in ("fine", "coarse"):
            assert isinstance(module, nn.Conv2d)
            setattr(head, name, FastConvolution(module, "none"))
    head.project, head.act = FastConvolution(head.project, "relu6"), nn.Identity()  # type: ignore[assignment]
