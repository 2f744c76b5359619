"""What is expected of heads at a crop's border: boxes about the heads, as the Bayesian loss was published with."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np

Border = Literal["points", "half", "fraction"]


class Rule(NamedTuple):
    """How large a head's box is, in pixels of the picture, and which heads of a crop are kept."""

    factor: float  # of the mean distance to the three nearest heads, which gives the box's side
    smallest: float
    largest: float
    kept: float  # share of the box inside the crop from which a head is kept


RULES = {"half": Rule(0.8, 4.0, 40.0, 0.5), "fraction": Rule(1.0, 4.0, 128.0, 0.3)}
"""ShanghaiTech's, whose heads count 1, and UCF-QNRF's, whose heads count the share (Ma et al., ICCV 2019)."""


class Window(NamedTuple):
    """Where a crop lies in its picture, and how its pixels follow from the picture's."""

    left: float
    top: float
    width: float  # pixels of the picture
    height: float
    scale: tuple[float, float] = (1.0, 1.0)  # the crop's pixels per pixel of the picture
    mirrored: bool = False

    def place(self, points: np.ndarray) -> np.ndarray:
        """(x, y) in the picture [N, 2] -> float32 in the crop; points outside stay outside."""
        x, y = (points - (self.left, self.top)).T * np.array(self.scale)[:, None]
        if self.mirrored:  # in float32, a little less: a head on the left edge of its pixel stays in that pixel
            x = np.nextafter(np.float32(self.width * self.scale[0]) - x.astype(np.float32), np.float32(-np.inf))
        return np.stack([x, y], 1).astype(np.float32)


def box_sides(points: np.ndarray, rule: Rule) -> np.ndarray:
    """Sides of the boxes of all heads of a picture, float64 [N]; a head without others has the largest one.

    Args:
        points: [N, 2] (x, y) in pixels.
    """
    from scipy.spatial import KDTree

    nearest = min(3, len(points) - 1)
    if nearest < 1:
        return np.full(len(points), rule.largest)
    distances, _ = KDTree(points).query(points, nearest + 1)  # itself first
    return np.clip(rule.factor * distances[:, 1:].mean(1), rule.smallest, rule.largest)


def at_border(points: np.ndarray, window: Window, border: Border) -> tuple[np.ndarray, np.ndarray]:
    """The heads that a crop keeps, some outside of it: positions in the crop [n, 2] and expected counts [n], float32.

    Args:
        points: [N, 2] (x, y) of all heads in pixels of the picture; border: a key of `RULES`.
    """
    rule = RULES[border]
    points = np.asarray(points, np.float64).reshape(-1, 2)
    half = box_sides(points, rule)[:, None] / 2
    low, size = np.array([window.left, window.top]), np.array([window.width, window.height])
    inside = np.minimum(points + half, low + size) - np.maximum(points - half, low)
    share = (inside.clip(min=0) / (2 * half)).prod(1)
    kept = share >= rule.kept
    targets = share[kept] if border == "fraction" else np.ones(kept.sum())
    return window.place(points[kept]), targets.astype(np.float32)
