"""Predictors that a counter has to beat: the training mean, and a ridge regression on image statistics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from ..data.domains import Item


MEAN, RIDGE = ", always its training mean", ", ridge on image statistics"  # added to a data set's name in tables


def mean_baseline(train: Sequence[Item], test: Sequence[Item]) -> np.ndarray:
    """The mean training count of each test item's own domain, float64 [len(test)]."""
    counts = {d: [i.count for i in train if i.domain == d] for d in {i.domain for i in train}}
    return np.array([np.mean(counts[item.domain]) for item in test], np.float64)


def ridge_baseline(train: Sequence[Item], test: Sequence[Item]) -> np.ndarray:
    """Ridge regression of the count on `image_statistics`, one per domain, float64 [len(test)].

    The penalty is chosen by leave-one-out on the training items; a negative prediction becomes 0.
    """
    from sklearn.linear_model import RidgeCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    predicted = np.zeros(len(test))
    for domain in {item.domain for item in test}:
        own = [item for item in train if item.domain == domain]
        wanted = [i for i, item in enumerate(test) if item.domain == domain]
        regression = make_pipeline(StandardScaler(), RidgeCV(alphas=np.logspace(-2, 4, 13)))
        regression.fit([image_statistics(item) for item in own], [item.count for item in own])
        predicted[wanted] = regression.predict([image_statistics(test[i]) for i in wanted])
    return predicted.clip(min=0.0)


def image_statistics(item: Item) -> np.ndarray:
    """What a glance without a network sees, float64 [9].

    Edge density (share of pixels whose brightness gradient exceeds 5, 10 and 20 % of the range), mean
    gradient, brightness moments (mean, deviation, skewness, kurtosis), logarithm of the number of pixels.
    """
    luma = item.read() @ np.array([0.299, 0.587, 0.114], np.float32) / 255
    gradient = np.hypot(np.diff(luma, axis=0)[:, :-1], np.diff(luma, axis=1)[:-1])
    mean, deviation = luma.mean(), max(luma.std(), 1e-6)
    standard = (luma - mean) / deviation
    square = standard * standard  # powers of float32 arrays take NumPy a hundred times as long as products
    edges = [(gradient > threshold).mean() for threshold in (0.05, 0.1, 0.2)]
    moments = [mean, deviation, (square * standard).mean(), (square * square).mean()]
    return np.array([*edges, gradient.mean(), *moments, np.log(luma.size)], np.float64)
