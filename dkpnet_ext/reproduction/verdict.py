"""Figures over several seeds, and what they say about a claim."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def spread(values: np.ndarray) -> str:
    """Mean and, over several seeds, standard deviation."""
    values = values[~np.isnan(values)]
    if not len(values):
        return "-"
    text = f"{values.mean():.2f}"
    return text if len(values) < 2 else f"{text} ± {values.std(ddof=1):.2f}"


def verdict(better: np.ndarray, worse: np.ndarray, domains: Sequence[str]) -> str:
    """Does ``better`` [seeds, domains] have lower errors than ``worse``?

    Judged by the mean over data sets of the logarithm of the ratio of errors, paired by seed: it *holds* if the mean over
    seeds lies more than two standard errors below zero and no data set got worse on average, *holds on average* if some
    did, *does not hold* if it lies as far above, and is *within noise* else. One seed gives no verdict; a seed that one of
    them lacks (NaN) does not count.
    """
    ratio = np.log(better / worse)
    ratio = ratio[~np.isnan(ratio).all(axis=1)]
    if not len(ratio):
        return "no seed has both, no verdict"
    per_seed = np.nanmean(ratio, axis=1)
    change = 100 * (np.exp(per_seed.mean()) - 1)
    lost = [d for d, r in zip(domains, ratio.T, strict=True) if not np.isnan(r).all() and np.nanmean(r) > 0]
    figures = f"{change:+.1f} % in MAE over the data sets" + (f"; worse on {', '.join(lost)}" if lost else "")
    if len(per_seed) < 2:
        return f"one seed, no verdict ({figures})"
    error = per_seed.std(ddof=1) / np.sqrt(len(per_seed))
    figures += f", {len(per_seed)} seeds, standard error {100 * error:.1f} %"
    if abs(per_seed.mean()) <= 2 * error:
        return f"within noise ({figures})"
    if per_seed.mean() > 0:
        return f"does not hold ({figures})"
    return f"{'holds on average' if lost else 'holds'} ({figures})"
