"""Pooled features, from the backbone's branches: the input of the attention.

The mean over the pixels of a bilinear upsampling (align_corners=False) is a weighted mean over the source's pixels, with
one weight per row times one per column. Where the output's size is a multiple of the branch's, as it always is in our
networks, all weights are equal and it is the plain mean. Plain PyTorch on every device: it reads each branch once, at the
memory's speed, in one launch; a kernel of ours could save nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .backend import wide_dtype
from .reference import upsampled_mean


def pool(branches: Sequence[Tensor], neck_weight: Tensor, neck_bias: Tensor | None, size: tuple[int, int]) -> Tensor:
    """Global average of the neck's output, g = Wn mean(upsample(f)) + bn (the input of Eq. 1 in the DKPNet paper).

    Differentiable with respect to every tensor, any number of times.

    Args:
        branches: N >= 1 tensors [B, C_j, H_j, W_j] of one floating point dtype, in any layout.
        neck_weight: [K, sum C_j]; neck_bias: [K] or None; of any floating point dtype.
        size: (H, W) that the branches are upsampled to.

    Returns:
        [B, K], float32 (float64 for float64; under autocast, autocast's dtype).

    Raises:
        ValueError: shapes that do not fit.
    """
    if not branches or any(branch.dim() != 4 or 0 in branch.shape[2:] for branch in branches):
        raise ValueError(f"pool: needs branches [B, C, H, W], got {[list(branch.shape) for branch in branches]}")
    channels = sum(branch.shape[1] for branch in branches)
    if neck_weight.dim() != 2 or neck_weight.shape[1] != channels:
        raise ValueError(f"pool: neck_weight must be [K, {channels}], got {list(neck_weight.shape)}")
    pooled = torch.cat([_mean(branch, size) for branch in branches], dim=1)
    return F.linear(pooled, neck_weight.to(pooled.dtype), None if neck_bias is None else neck_bias.to(pooled.dtype))


def _mean(branch: Tensor, size: tuple[int, int]) -> Tensor:
    """Mean of the branch's upsampling to ``size``: [B, C]."""
    if size[0] % branch.shape[2] or size[1] % branch.shape[3]:
        return upsampled_mean(branch, size)
    return branch.mean((2, 3), dtype=wide_dtype(branch.dtype))


pooled_features = pool
"""An earlier name of `pool`."""
