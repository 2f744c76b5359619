"""Regions of interest that belong to a data set: people outside are not annotated.

A region is its vertices [K, 2] (x, y) in pixels, or a mask [H, W] of booleans, of the upright image. Rows of NaN divide
vertices into polygons: the region is the first (the whole image if that has no vertices) without the others; one below two
such rows belongs to it again, whatever was left out before. Heads outside are left out, and the pixels outside are painted
in one colour, so that they are neither counted nor trained on.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from .images import BadFile, turn_points

OUTSIDE = (124, 116, 104)  # ImageNet's mean colour: zero for a network that normalises


def all_but(polygons: Sequence[np.ndarray], kept: Sequence[np.ndarray] = ()) -> np.ndarray:
    """The region [K, 2] that leaves out polygons [K_i, 2], which may overlap, but for those in ``kept``."""
    gap = np.full((1, 2), np.nan)
    parts = [*((gap, polygon) for polygon in polygons), *((gap, gap, polygon) for polygon in kept)]
    return np.concatenate([np.zeros((0, 2)), *(piece for part in parts for piece in part)])


def region_mask(region: np.ndarray, old: tuple[int, int], new: tuple[int, int]) -> np.ndarray:
    """A region of an image of size ``old`` (H, W) as a mask [H, W] of booleans for that image resized to ``new``."""
    if region.dtype == bool:
        picture = Image.fromarray(region)
        return np.asarray(picture.resize((new[1], new[0]), Image.Resampling.NEAREST))
    corners = region * [new[1] / old[1], new[0] / old[0]]
    breaks = np.flatnonzero(np.isnan(corners[:, 0]))
    first, *others = np.split(corners, breaks)
    mask = rasterize([first], new) if len(first) else np.ones(new, bool)
    again = False
    for part in others:
        if len(part) > 1:
            inside = rasterize([part[1:]], new)
            mask = mask | inside if again else mask & ~inside
        again = len(part) == 1
    return mask


def rasterize(rings: Sequence[np.ndarray], size: tuple[int, int]) -> np.ndarray:
    """Pixels [H, W] whose centre is inside rings [n, 2] of (x, y) in pixels (even-odd rule, so holes are outside).

    Crossings are half-open and computed alike for either direction of an edge: polygons that share edges share no
    pixel and leave none out.
    """
    height, width = size
    spans = [(ring[:, 1].min(), ring[:, 1].max()) for ring in rings if len(ring)]
    above = int(np.clip(min((low for low, _ in spans), default=0), 0, height))  # rows without an edge are left out
    below = math.ceil(np.clip(max((high for _, high in spans), default=0), above, height))
    flips = np.zeros((below - above, width + 1), np.uint8)
    for ring in rings:
        for a, b in zip(ring, np.roll(ring, -1, axis=0), strict=True):
            (x0, y0), (x1, y1) = sorted((tuple(a), tuple(b)), key=lambda p: (p[1], p[0]))
            # Rows whose centre row + 0.5 lies in [y0, y1).
            rows = np.arange(max(math.ceil(y0 - 0.5), 0), min(math.ceil(y1 - 0.5), height))
            if rows.size:
                crossing = x0 + (rows + 0.5 - y0) * ((x1 - x0) / (y1 - y0))
                flips[rows - above, np.ceil(crossing - 0.5).clip(0, width).astype(np.int64)] ^= 1
    mask = np.zeros(size, bool)
    mask[above:below] = np.bitwise_xor.accumulate(flips, axis=1)[:, :width]
    return mask


def inside_region(points: np.ndarray, region: np.ndarray, size: tuple[int, int], image: Path) -> np.ndarray:
    """Which of the points [N, 2] lie in the region of an image of ``size`` (H, W): booleans [N]. Raises `BadFile`."""
    if region.dtype == bool and region.shape != size:
        raise BadFile(
            image, f"it has {size[1]}x{size[0]} px, its region of interest {region.shape[1]}x{region.shape[0]}"
        )
    mask = region_mask(region, size, size)
    cells = np.floor(np.clip(points, -1, 1e9)).astype(int)
    within = ((cells >= 0) & (cells < [size[1], size[0]])).all(axis=1)
    cells[~within] = 0
    return within & mask[cells[:, 1], cells[:, 0]]


def turn_region(region: np.ndarray, orientation: int, size: tuple[int, int]) -> np.ndarray:
    """A region in stored pixels -> in the upright image of ``size`` (H, W); ``orientation`` is EXIF's, 1 to 8."""
    if region.dtype != bool:
        return turn_points(region, orientation, size)
    turned = region.T if orientation >= 5 else region
    turned = turned[:, ::-1] if orientation in (2, 3, 6, 7) else turned
    return turned[::-1] if orientation in (3, 4, 7, 8) else turned


def paint_outside(image: np.ndarray, region: np.ndarray, old: tuple[int, int]) -> np.ndarray:
    """The image [H, W, 3] with the pixels outside of the region (of an image of size ``old``) in `OUTSIDE`."""
    mask = region_mask(region, old, (image.shape[0], image.shape[1]))
    return np.where(mask[:, :, None], image, np.array(OUTSIDE, np.uint8))
