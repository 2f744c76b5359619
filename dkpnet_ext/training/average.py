"""Exponential moving average of a model's weights: what is validated and kept."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel


def averaged(model: nn.Module, decay: float) -> AveragedModel:
    """A copy of the model that `AveragedModel.update_parameters` moves towards it.

    Args:
        decay: share of the average that stays in a step; in the first steps (1 + n) / (10 + n), so that the random start is
            soon forgotten.
    """

    def update(
        average: tuple[Tensor, ...] | list[Tensor], current: tuple[Tensor, ...] | list[Tensor], steps: Tensor | int
    ) -> None:
        n = int(steps)
        with torch.no_grad():
            torch._foreach_lerp_(average, current, 1 - min(decay, (1 + n) / (10 + n)))

    return AveragedModel(model, multi_avg_fn=update)
