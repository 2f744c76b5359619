"""From density to points: where the heads are that a density map counts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor

# Where a head is looked for first: the mass of a cell, and a little of its neighbours' (a Gaussian of half a cell).
_KERNEL = np.exp(-2 * np.add.outer(np.arange(-1, 2) ** 2, np.arange(-1, 2) ** 2))
# What a 3 x 3 block of mass adds to the scores of the 5 x 5 cells around it.
_SPREAD = np.zeros((25, 9))
for _i in range(9):
    _y, _x = divmod(_i, 3)
    _SPREAD.reshape(5, 5, 9)[_y : _y + 3, _x : _x + 3, _i] = _KERNEL
_STEPS = np.array([(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1)], np.float64)


def locate(density: ArrayLike | Tensor, stride: int) -> tuple[np.ndarray, np.ndarray]:
    """Points in a density map, exactly as many as its rounded count.

    One head after the other is taken off the map: at the cell with the most mass around it, the mass nearest to the centre
    of its 3 x 3 block is removed until it makes up one head, and the head lies in that mass's centre. Where people stand
    closer than the map resolves, several heads so come out of one block, which local maxima alone would miss. Chosen on
    validation images, figures in bench/results/points.md.

    Args:
        density: [h, w] heads per cell; what is below 0 counts as 0.
        stride: pixels per cell and axis.

    Returns:
        points [N, 2] (x, y) in pixels, float64, where N is the sum of the density, rounded; in the order in which they
        were found, the surest first by and large. scores [N], float64 in (0, 1]: the mass that was there for the head. 1 is
        a whole head in one place; low ones are spread thinly.

    Raises:
        ValueError: another shape; a density that is not finite.
    """
    cells = np.asarray(density.detach().cpu() if isinstance(density, Tensor) else density, np.float64)
    if cells.ndim != 2 or not np.isfinite(cells).all():
        raise ValueError(f"locate: a finite density [h, w] is expected, got shape {list(cells.shape)}")
    # A head's mass is spread over pixels, not cells: cells of a pixel or two are put together (a pixel's to 8, as SFCN and
    # DSSINet compute cells of 8 and enlarge them).
    together = {1: 8, 2: 2, 3: 2}.get(stride, 1)
    height, width = (-(-side // together) * together for side in cells.shape)
    cells = np.pad(cells.clip(min=0), ((0, height - cells.shape[0]), (0, width - cells.shape[1])))
    cells = cells.reshape(height // together, together, width // together, together).sum((1, 3))
    left = np.pad(cells, 2)
    count = round(float(left.sum()))
    score = _scores(left)
    points, scores = np.empty((count, 2)), np.empty(count)
    for i in range(count):
        y, x = divmod(int(score.argmax()), score.shape[1])
        block = left[y - 1 : y + 2, x - 1 : x + 2]
        mass = block.ravel()
        centre = mass @ _STEPS / mass.sum()
        order = np.argsort(np.square(_STEPS - centre).sum(1), kind="stable")
        taken = np.empty(9)
        before = np.cumsum(mass[order]) - mass[order]
        taken[order] = np.clip(1 - before, 0, mass[order])
        scores[i] = min(taken.sum(), 1.0)
        dy, dx = taken @ _STEPS / taken.sum()
        points[i] = x + dx - 1.5, y + dy - 1.5  # 2 of padding, and half a cell to its centre
        block -= taken.reshape(3, 3)
        score[y - 2 : y + 3, x - 2 : x + 3] -= (_SPREAD @ taken).reshape(5, 5)
    return points * stride * together, scores


def to_picture(points: np.ndarray, counted: Sequence[int], size: Sequence[int]) -> np.ndarray:
    """Points [N, 2] in a picture that was counted at (h, w), in pixels of the picture itself, whose size is (H, W).

    The last cells of a density map reach over the picture's edge: what lies there moves to the edge.
    """
    (height, width), limit = size, np.nextafter(np.array(size[::-1], np.float64), 0)
    return (points * (width / counted[1], height / counted[0])).clip(0, limit)


def _scores(mass: np.ndarray) -> np.ndarray:
    """`_KERNEL` around every cell of a padded map; 0 in the padding, where no head can be."""
    score = np.zeros_like(mass)
    height, width = mass.shape[0] - 4, mass.shape[1] - 4
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            moved = mass[2 + dy : 2 + dy + height, 2 + dx : 2 + dx + width]
            score[2:-2, 2:-2] += _KERNEL[1 + dy, 1 + dx] * moved
    return score
