"""Zero-inflated Poisson counts (ZIP, arXiv 2506.19955): what the head's outputs of a cell mean under the link ``zip``.

A cell is empty for sure with probability pi, else its count is a Poisson variable of rate lambda. The head gives two
logits for pi and one logit per bin of counts; lambda is the bins' mean counts, averaged by their softmax.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

_SINGLE = 8
BINS = (*((n, n) for n in range(1, _SINGLE + 1)), *((n, n + 1) for n in range(_SINGLE + 1, 17, 2)))
"""First and last count of each bin: one to eight heads, then pairs; more than 16 belong to the last. Of cells of 8 pixels."""
OUTPUTS = 2 + len(BINS)
# Of an untrained network: log odds of a cell that may hold heads; of each bin to the one before.
_OCCUPIED, _FALL = -3.0, -0.7


class ZeroInflated(NamedTuple):
    """The distribution of the cells' counts, float32 or float64 [B, ., h, w]."""

    log_empty: Tensor  # [B, 1, h, w], ln pi
    log_occupied: Tensor  # [B, 1, h, w], ln (1 - pi)
    bins: Tensor  # [B, len(BINS), h, w], logits
    rate: Tensor  # [B, 1, h, w], lambda, heads per cell

    @property
    def density(self) -> Tensor:
        """(1 - pi) lambda, the expected heads per cell [B, 1, h, w]."""
        return self.log_occupied.exp() * self.rate


def zero_inflated(output: Tensor) -> ZeroInflated:
    """Reads the head's output [B, OUTPUTS, h, w]: empty, occupied, bins.

    Constants are added so that an untrained head, whose outputs are near zero, expects 0.1 heads in a cell and not four.
    """
    output = output.to(torch.promote_types(output.dtype, torch.float32))
    states = torch.cat([output[:, :1], output[:, 1:2] + _OCCUPIED], 1)
    log_empty, log_occupied = F.log_softmax(states, 1).split(1, 1)
    # Numbers that are counted on the device: a tensor of a list would make the host wait for a GPU.
    number = torch.arange(len(BINS), dtype=output.dtype, device=output.device).view(1, -1, 1, 1)
    means = torch.where(number < _SINGLE, number + 1, 2 * number - _SINGLE + 1.5)
    bins = output[:, 2:] + _FALL * number
    return ZeroInflated(log_empty, log_occupied, bins, (bins.softmax(1) * means).sum(1, keepdim=True))


def bin_of(counts: Tensor) -> Tensor:
    """Number of the bin of each count of 1 or more: int64, any shape."""
    pairs = ((counts - _SINGLE + 1) / 2).floor() + _SINGLE - 1
    return torch.where(counts <= _SINGLE, counts - 1, pairs).clamp_max(len(BINS) - 1).long()
