"""MAE, RMSE and NAE of counts, and the table they are shown in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike


class Metrics(NamedTuple):
    """Errors of a set of images, in heads; NaN where undefined."""

    images: int
    mae: float  # mean |predicted - annotated|
    rmse: float  # sqrt(mean (predicted - annotated)^2), which counting papers call MSE
    nae: float  # mean |predicted - annotated| / annotated over images with annotated > 0


def summarize(predicted: ArrayLike, annotated: ArrayLike) -> Metrics:
    """Metrics of predicted counts [n] against the numbers of annotated points [n].

    Raises:
        ValueError: lengths that differ.
    """
    predicted, annotated = np.asarray(predicted, np.float64), np.asarray(annotated, np.float64)
    if predicted.ndim != 1 or predicted.shape != annotated.shape:
        raise ValueError(f"summarize: shapes {predicted.shape} and {annotated.shape} should be one [n]")
    if predicted.size == 0:
        return Metrics(0, np.nan, np.nan, np.nan)
    error = np.abs(predicted - annotated)
    crowded = annotated > 0
    nae = float((error[crowded] / annotated[crowded]).mean()) if crowded.any() else np.nan
    return Metrics(predicted.size, float(error.mean()), float(np.sqrt(np.square(error).mean())), nae)


def markdown_table(rows: Mapping[str, Metrics], title: str = "Data") -> str:
    """Markdown table of metrics, one row per key; an undefined figure is a dash."""
    lines = [f"| {title} | Images | MAE | RMSE (papers: MSE) | NAE |", "|---|---:|---:|---:|---:|"]
    for name, row in rows.items():
        figures = [f"{row.mae:.2f}", f"{row.rmse:.2f}", f"{row.nae:.3f}"]
        cells = ["-" if figure == "nan" else figure for figure in figures]
        lines.append(f"| {name} | {row.images} | {' | '.join(cells)} |")
    return "\n".join(lines)
