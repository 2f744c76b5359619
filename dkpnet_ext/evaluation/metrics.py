"""MAE, RMSE, NAE and GAME of counts, what is counted where nobody is, and the table they are shown in."""

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
    false_count: float = np.nan  # mean predicted over images with annotated = 0
    game: tuple[float, ...] = ()  # GAME(0), GAME(1) ...: see `game_errors`; () where only counts are known


GAME_LEVELS = 4  # GAME(0), which is the MAE, to GAME(3)


def game_errors(
    density: ArrayLike, points: ArrayLike, size: tuple[int, int], stride: int, levels: int = GAME_LEVELS
) -> np.ndarray:
    """Grid average mean absolute errors of one image, float64 [levels] (Guerrero-Gomez-Olmedo et al., 2015).

    GAME(L) divides the image into 2^L x 2^L equal parts and adds up the errors of their counts: a count that is right
    for the wrong places is seen. A density cell on a border is shared by area; a point outside the image belongs to
    the nearest part.

    Args:
        density: [ceil(H / stride), ceil(W / stride)] heads per cell; points: [n, 2] (x, y) in pixels.
        size: (H, W) of the image; stride: pixels per cell and axis.
    """
    density = np.asarray(density, np.float64)
    points = np.asarray(points, np.float64).reshape(-1, 2)
    errors = []
    for parts in (2**level for level in range(levels)):
        annotated = np.zeros((parts, parts))
        columns, rows = (
            np.clip(points[:, i] * parts // side, 0, parts - 1).astype(int) for i, side in ((0, size[1]), (1, size[0]))
        )
        np.add.at(annotated, (rows, columns), 1)
        predicted = _grid_sums(_grid_sums(density, size[0], stride, parts).T, size[1], stride, parts).T
        errors.append(np.abs(predicted - annotated).sum())
    return np.array(errors)


def _grid_sums(cells: np.ndarray, length: int, stride: int, parts: int) -> np.ndarray:
    """Sums of ``cells`` [n, m] over equal parts of the first axis, which covers ``length`` pixels: [parts, m]."""
    edges = np.minimum(np.arange(len(cells) + 1) * stride, length)
    sums = np.concatenate([np.zeros((1, cells.shape[1])), cells.cumsum(0)])
    at = np.linspace(0, length, parts + 1)
    before = np.searchsorted(edges, at, side="right").clip(1, len(cells)) - 1
    share = ((at - edges[before]) / (edges[before + 1] - edges[before]))[:, None]
    return np.diff((1 - share) * sums[before] + share * sums[before + 1], axis=0)


def summarize(predicted: ArrayLike, annotated: ArrayLike, game: ArrayLike | None = None) -> Metrics:
    """Metrics of predicted counts [n] against the numbers of annotated points [n].

    Args:
        game: `game_errors` of each image, [n, levels].

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
    false_count = float(predicted[~crowded].mean()) if not crowded.all() else np.nan
    levels = () if game is None else tuple(map(float, np.asarray(game, np.float64).mean(0)))
    rmse = float(np.sqrt(np.square(error).mean()))
    return Metrics(predicted.size, float(error.mean()), rmse, nae, false_count, levels)


def markdown_table(rows: Mapping[str, Metrics], title: str = "Data") -> str:
    """Markdown table of metrics, one row per key; an undefined figure is a dash, GAME is left out where no row has it.

    "Counted where nobody is" is the mean count of the images without an annotated head.
    """
    levels = max((len(row.game) for row in rows.values()), default=0)
    heads = ["Images", "MAE", "RMSE (papers: MSE)", "NAE", "Counted where nobody is"]
    heads += [f"GAME({level})" for level in range(1, levels)]
    lines = [f"| {title} | {' | '.join(heads)} |", "|---" + "|---:" * len(heads) + "|"]
    for name, row in rows.items():
        game = [*row.game, *[np.nan] * levels][1:levels] if levels else []
        figures = [f"{row.mae:.2f}", f"{row.rmse:.2f}", f"{row.nae:.3f}", f"{row.false_count:.2f}"]
        figures += [f"{error:.2f}" for error in game]
        cells = ["-" if figure == "nan" else figure for figure in figures]
        lines.append(f"| {name} | {row.images} | {' | '.join(cells)} |")
    return "\n".join(lines)
