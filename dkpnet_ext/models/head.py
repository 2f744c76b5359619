"""The neck (1x1 convolution to K channels) and the density head 64-32-1, in its literal and its folded form."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import ops
from ..ops import reference

Form = Literal["folded", "literal"]


def _matrix(conv: nn.Conv2d) -> tuple[Tensor, Tensor]:
    """Weight [out, in] and bias [out] of a 1x1 convolution."""
    assert conv.bias is not None
    return conv.weight.flatten(1), conv.bias


class AttendedHead(nn.Module):
    """Backbone branches -> pooled features -> (attention from outside) -> density.

    The literal form is the paper's text: upsample every branch, concatenate, 1x1 convolution to K channels, multiply
    by the attention, 1x1 convolutions 64-32-1 with ReLU between them. The folded form computes the same from the
    branches, without ever storing K channels (`ops.attended_head`): everything up to the 64 channels is linear.

    Args:
        in_channels: widths of the branches; channels: K; outputs: channels of the output, see `outputs_of`.
        form: how the forward pass runs; the parameters are the same.
    """

    coarse_cells = 1  # how many cells of the coarsest branch it looks beyond its own: bilinear upsampling, one

    def __init__(
        self, in_channels: Sequence[int], channels: int = 512, form: Form = "folded", outputs: int = 1
    ) -> None:
        super().__init__()
        self.form = form
        self.neck = nn.Conv2d(sum(in_channels), channels, 1)
        self.conv1 = nn.Conv2d(channels, 64, 1)
        self.conv2 = nn.Conv2d(64, 32, 1)
        self.conv3 = nn.Conv2d(32, outputs, 1)

    @property
    def attended(self) -> nn.Conv2d:
        """The convolution that the attended features go into."""
        return self.conv1

    def pool(self, branches: Sequence[Tensor], size: tuple[int, int]) -> tuple[Tensor, Tensor | None]:
        """The pooled features that attention is computed from.

        Args:
            branches: list of [B, C_j, H_j, W_j]; size: (H, W), at which they are averaged.

        Returns:
            g [B, K], and in the literal form the features x [B, K, H, W] it is the mean of, else None.
        """
        if self.form == "folded":
            return ops.pool(branches, self.neck.weight.flatten(1), self.neck.bias, size), None
        upsampled = [
            b if b.shape[-2:] == size else F.interpolate(b, size=size, mode="bilinear", align_corners=False)
            for b in branches
        ]
        x = self.neck(torch.cat(upsampled, dim=1))
        return x.mean((2, 3)), x

    def forward(
        self, branches: Sequence[Tensor], attention: Tensor | None, size: tuple[int, int], x: Tensor | None
    ) -> Tensor:
        """Density [B, 1, H, W] before `Network.unscale`, or as many channels as there are outputs.

        Args:
            branches: list of [B, C_j, H_j, W_j]; attention: [B, K] or None (all ones); size: (H, W).
            x: the features that `pool` returned.
        """
        if x is None:
            # The compiled operator has one output; of several, plain PyTorch computes the same folded form.
            head = ops.attended_head if self.conv3.out_channels == 1 else reference.head
            return head(
                branches, attention, *_matrix(self.neck), *_matrix(self.conv1), *_matrix(self.conv2),
                *_matrix(self.conv3), size,
            )  # fmt: skip
        if attention is not None:
            x = ops.reweight(x, attention)
        return self.conv3(F.relu(self.conv2(F.relu(self.conv1(x)))))
