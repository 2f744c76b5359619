"""The part of a model that an engine replaces: from the normalised image to the features that its head decodes.

That is the backbone, and of the `fpn` head the neck, which is not linear and belongs to the features. What decides for the
whole image (pooling, attention) and what decodes is there in Python, so that tiles, attention and regions do not know of it.
Of a network with an `fpn` head it is in the graph, too, for images that are counted in one piece.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from torch import Tensor, nn

from ..attention import VariationalAttention
from ..convolutions import FusedPointwise, use_fast_convolutions
from ..fpn import FPNHead, Mix
from ..network import Network


class Trunk(nn.Module):
    """Normalised, padded images [B, 3, H, W] -> features, one [B, channels[j], H / reductions[j], W / reductions[j]] each.

    Args:
        model: its backbone, neck, attention and head are shared, not copied.

    Attributes:
        whole: names of what `counted` gives; empty where the head is not part of the trunk.
    """

    def __init__(self, model: Network) -> None:
        super().__init__()
        head = model.pooling_head
        self.backbone: Any = model.backbone
        self.neck = head if isinstance(head, FPNHead) else None
        self.name, self.multiple = model.backbone_name, model.multiple
        self.reductions = tuple(model.backbone.reductions) if self.neck is None else (model.out_stride,)
        self.channels = tuple(model.backbone.channels) if self.neck is None else (model.channels,)
        self.features = tuple(f"features{j}" for j in range(len(self.channels)))
        self.whole: dict[str, int] = {}  # name -> channels
        if self.neck is not None:
            self.attention: Any = getattr(model, "attention", None)
            self.whole["output"] = model.outputs
            if self.attention is not None:
                self.whole["attention"] = model.channels
            if isinstance(self.attention, VariationalAttention):
                self.whole |= dict.fromkeys(("mu", "logvar"), self.attention.centers.shape[-1])

    def forward(self, x: Tensor) -> list[Tensor]:
        """x [B, 3, H, W], H and W multiples of `multiple`."""
        branches = self.backbone(x)
        return list(branches) if self.neck is None else [self.neck.pool(branches)[1]]

    def everything(self, x: Tensor) -> list[Tensor]:
        """The features, and what `whole` names: the head's output [B, ., h, w], attention, mu and logvar [B, .]."""
        features = self(x)
        if not self.whole:
            return features
        assert self.neck is not None
        decided: dict[str, Tensor | None] = {}
        (cells,) = features
        if self.attention is not None:
            decided = self.attention(cells.mean((2, 3)))._asdict()
            cells = cells * decided["attention"][:, :, None, None]  # type: ignore[index]
        decided["output"] = self.neck(features, None, (0, 0), cells)
        return features + [cast(Tensor, decided[name]) for name in self.whole]


class FPNTail(FPNHead):
    """What is left of an `FPNHead` once its neck belongs to the trunk: [B, K, H/8, W/8] -> density."""

    coarse_cells = 0  # the trunk has looked around

    def __init__(self, head: FPNHead) -> None:
        nn.Module.__init__(self)
        self.project, self.act, self.out = head.project, head.act, head.out

    def features(self, branches: Sequence[Tensor]) -> Tensor:
        """The trunk's, [x]."""
        (x,) = branches
        return x


def use_fast_head(head: FPNHead) -> None:
    """Replace, in place, the convolutions of an `FPNHead` or `FPNTail` by ours, each with what comes after it."""
    for name, module in list(head.named_modules()):
        if isinstance(module, Mix):
            use_fast_convolutions(module)
        elif name in ("fine", "coarse"):
            assert isinstance(module, nn.Conv2d)
            setattr(head, name, FusedPointwise(module))
    head.out = FusedPointwise(head.out, dtype=head.out.weight.dtype)  # type: ignore[assignment]
    head.project, head.act = FusedPointwise(head.project, "relu6"), nn.Identity()  # type: ignore[assignment]
