"""A counter times one factor: the least that adapting has to beat."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from ..evaluation.inference import predict_counts

if TYPE_CHECKING:
    from ..data import Item
    from ..models import CrowdCounter

# A larger factor, or a smaller one than its inverse, says that the counter sees nothing of what is labelled.
_MOST = 20.0
_COUNTED = 100  # training pictures: one number does not need more


@dataclass(frozen=True)
class Factor:
    """What one factor does to a counter's counts of labelled pictures."""

    value: float
    pictures: int
    unchanged: float  # MAE of the counter as it is
    scaled: float  # MAE with a factor; each picture is counted with that of the others

    @property
    def helps(self) -> bool:
        """Whether the counter is better with it on pictures that had no part in it."""
        return self.scaled < self.unchanged and 1 / _MOST <= self.value <= _MOST

    def words(self) -> str:
        """One line for people."""
        return (
            f"Of all {self.pictures} labelled pictures the counter's MAE is {self.unchanged:.2f} unchanged and "
            f"{self.scaled:.2f} times one factor (each picture with that of the others)."
        )


def find_factor(
    model: CrowdCounter, train: Sequence[Item], val: Sequence[Item], device: torch.device | str = "cpu"
) -> Factor | None:
    """The best factor on a counter for the pictures of one data set.

    A factor has one parameter, so it is judged on every picture, left out of it in turn, and none need be held out.

    Returns:
        None where there are heads in several data sets, which may need other factors, and of pictures that are all counted
        as empty.
    """
    if len({item.domain for item in [*train, *val] if item.count}) != 1:
        return None
    domain = next(item.domain for item in [*train, *val] if item.count)
    learned = [item for item in train if item.domain == domain]
    held = [item for item in val if item.domain == domain]
    items = [*held, *learned[:: max(1, -(-len(learned) // _COUNTED))]]
    predicted = predict_counts(model, items, device=device)
    annotated = np.array([item.count for item in items], np.float64)
    if not (predicted > 0).sum() > 1:
        return None
    unchanged = float(np.abs(predicted - annotated).mean())
    scaled = float(np.abs(scaled_by_others(predicted, annotated) - annotated).mean())
    return Factor(least_absolute(predicted, annotated), len(items), unchanged, scaled)


def least_absolute(predicted: np.ndarray, annotated: np.ndarray) -> float:
    """The factor f with the least sum of |f predicted - annotated|, of float64 [n] counts of which one is above zero.

    It is the median of annotated / predicted, weighted by predicted. The ratio of the sums is as good where all pictures
    are missed by about the same share, and a third worse where they are not (bench/results/adapt.md).
    """
    seen = predicted > 0
    ratios, weights = annotated[seen] / predicted[seen], predicted[seen]
    order = np.argsort(ratios)
    sums = np.cumsum(weights[order])
    return float(ratios[order][np.searchsorted(sums, sums[-1] / 2)])


def scaled_by_others(predicted: np.ndarray, annotated: np.ndarray) -> np.ndarray:
    """Counts times a factor, float64 [n], where each picture takes the factor of the others."""
    others = ~np.eye(len(predicted), dtype=bool)
    factors = [least_absolute(predicted[o], annotated[o]) if predicted[o].any() else 1.0 for o in others]
    return np.array(factors) * predicted
