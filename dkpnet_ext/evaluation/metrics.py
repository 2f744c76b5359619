"""MAE, RMSE, NAE and GAME of counts, false counts on images without people, located heads, and the tables of all these."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ..markdown import table

if TYPE_CHECKING:
    from ..models.calibration import Assessment


class Localisation(NamedTuple):
    """How many heads of a set of images are found at their place; shares in [0, 1], NaN where undefined."""

    radius: float | str  # pixels of the original image, or one of `BOX_RADII`
    precision: float  # found heads among the located points
    recall: float  # found heads among the annotated points
    f1: float  # harmonic mean of the two


class Coverage(NamedTuple):
    """How far a calibrated counter's intervals hold on a set of images; shares in [0, 1], NaN where undefined."""

    unlike: float  # share of the images that are unlike the training images; they have no interval
    level: int  # per cent of images whose annotated count should lie in the interval
    covered: float  # share of the images with an interval whose annotated count lies in it
    width: float  # median of the intervals' width over count + 1


class Metrics(NamedTuple):
    """Errors of a set of images, in heads; NaN where undefined."""

    images: int
    mae: float  # mean |predicted - annotated|
    rmse: float  # sqrt(mean (predicted - annotated)^2), which counting papers call MSE
    nae: float  # mean |predicted - annotated| / annotated over images with annotated > 0
    false_count: float = np.nan  # mean predicted over images with annotated = 0
    game: tuple[float, ...] = ()  # GAME(0), GAME(1) ...: see `game_errors`; () where only counts are known
    points: tuple[Localisation, ...] = ()  # one per radius; () where points are not asked for
    intervals: tuple[Coverage, ...] = ()  # one per level; () of a model that is not calibrated


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


RADII = (4.0, 8.0)  # pixels of the original image; without boxes of heads the field's thresholds for ShanghaiTech
BOX_RADII = ("sigma_l", "sigma_s")  # NWPU-Crowd's thresholds, where every head has a box, see `box_radii`


def box_radii(sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """NWPU-Crowd's thresholds of heads with boxes of ``sizes`` [n, 2] (width, height): [n] each, in their unit.

    sigma_l is half of the diagonal, sigma_s half of the shorter side (Wang et al., 2020).
    """
    return np.hypot(*sizes.T) / 2, sizes.min(axis=1) / 2


def matched_points(located: ArrayLike, annotated: ArrayLike, radius: ArrayLike) -> int:
    """The largest number of pairs of a located and an annotated point, at most ``radius`` apart, each point in one pair.

    As in NWPU-Crowd's evaluation (Wang et al., 2020), which matches one to one by the Hungarian algorithm on what lies
    within the threshold.

    Args:
        located: [n, 2] (x, y); annotated: [m, 2]; radius: in their unit, one or [m].
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import maximum_bipartite_matching
    from scipy.spatial import KDTree

    located, annotated = (np.asarray(points, np.float64).reshape(-1, 2) for points in (located, annotated))
    if not len(located) or not len(annotated):
        return 0
    reach = np.broadcast_to(np.asarray(radius, np.float64), len(annotated))
    near = KDTree(located).sparse_distance_matrix(KDTree(annotated), float(reach.max()), output_type="coo_matrix")
    inside = near.data <= reach[near.col]
    ones = np.ones(int(inside.sum()))  # a distance of 0 is a pair, too
    pairs = coo_matrix((ones, (near.row[inside], near.col[inside])), near.shape).tocsr()
    return int((maximum_bipartite_matching(pairs, perm_type="column") >= 0).sum())


def localisation(matched: float, located: float, annotated: float, radius: float | str) -> Localisation:
    """Precision, recall and F1 of heads summed over images."""
    return Localisation(
        radius,
        matched / located if located else np.nan,
        matched / annotated if annotated else np.nan,
        2 * matched / (located + annotated) if located + annotated else np.nan,
    )


def coverage(assessed: Sequence[Assessment], predicted: ArrayLike, annotated: ArrayLike) -> tuple[Coverage, ...]:
    """How far the intervals of n images hold, for each level that any of them has.

    Args:
        assessed: what is said of each; predicted, annotated: [n] counts.
    """
    counts = list(zip(assessed, np.asarray(predicted, np.float64), np.asarray(annotated), strict=True))
    unlike = float(np.mean([each.unlike for each in assessed]))
    rows = []
    for level in sorted({level for each in assessed for level in each.intervals}):
        known = [(*each.intervals[level], count, heads) for each, count, heads in counts if level in each.intervals]
        low, high, count, heads = np.array(known, np.float64).T
        covered = float(((low <= heads) & (heads <= high)).mean())
        rows.append(Coverage(unlike, level, covered, float(np.median((high - low) / (count + 1)))))
    return tuple(rows) or (Coverage(unlike, 0, np.nan, np.nan),)


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


def points_table(rows: Mapping[str, Metrics], title: str = "Data") -> str:
    """Markdown table of `Metrics.points`, a row per key and radius; "" where there are none."""
    lines = [
        (
            name,
            found.radius if isinstance(found.radius, str) else f"{found.radius:g}",
            *(_cell(share, 3) for share in (found.precision, found.recall, found.f1)),
        )
        for name, row in rows.items()
        for found in row.points
    ]
    return table((title, "Radius (px)", "Precision", "Recall", "F1"), lines) if lines else ""


def intervals_table(rows: Mapping[str, Metrics], title: str = "Data") -> str:
    """Markdown table of `Metrics.intervals`, a row per key and level; "" where there are none."""
    header = (title, "Unlike the training images", "Interval", "Annotated count inside", "Median width / count")
    lines = []
    for name, row in rows.items():
        for each in row.intervals:
            figures = [
                f"{100 * each.unlike:.1f} %",
                f"{each.level} %",
                f"{100 * each.covered:.1f} %",
                f"{each.width:.2f}",
            ]
            if not each.level:
                figures[1:] = ["-"] * 3
            lines.append((name, *figures))
    return table(header, lines) if lines else ""


def _cell(value: float, digits: int) -> str:
    """A number, or a dash where it is undefined."""
    return "-" if np.isnan(value) else f"{value:.{digits}f}"


def markdown_table(rows: Mapping[str, Metrics], title: str = "Data") -> str:
    """Markdown table of metrics, one row per key; an undefined figure is a dash, GAME is left out where no row has it.

    "False count" is the mean count of the images without an annotated head.
    """
    levels = max((len(row.game) for row in rows.values()), default=0)
    header = [title, "Images", "MAE", "RMSE (papers: MSE)", "NAE", "False count"]
    header += [f"GAME({level})" for level in range(1, levels)]
    lines = []
    for name, row in rows.items():
        game = [*row.game, *[np.nan] * levels][1:levels] if levels else []
        figures = (_cell(row.mae, 2), _cell(row.rmse, 2), _cell(row.nae, 3), _cell(row.false_count, 2))
        lines.append((name, row.images, *figures, *(_cell(error, 2) for error in game)))
    return table(header, lines)
