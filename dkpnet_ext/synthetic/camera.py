"""The pinhole camera of the synthetic scenes: world metres to pixels, and rays through pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Camera:
    """A pinhole ``up`` metres above the origin, looking along +z, ``tilt`` radians down; ``focal`` in pixels."""

    width: int
    height: int
    focal: float
    tilt: float
    up: float

    def project(self, x: np.ndarray, h: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """World metres (right, height, ahead) -> pixel column, pixel row, depth along the axis."""
        sin, cos = np.sin(self.tilt), np.cos(self.tilt)
        depth = (self.up - h) * sin + z * cos
        down = (self.up - h) * cos - z * sin
        safe = np.maximum(depth, 0.1)
        return self.width / 2 + self.focal * x / safe, self.height / 2 + self.focal * down / safe, depth

    def rays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Directions at unit depth: x [1, W], height [H, 1], z [H, 1] (a row of pixels shares the latter two)."""
        a = ((np.arange(self.width) + 0.5 - self.width / 2) / self.focal).astype(np.float32)[None, :]
        b = ((np.arange(self.height) + 0.5 - self.height / 2) / self.focal).astype(np.float32)[:, None]
        sin, cos = np.float32(np.sin(self.tilt)), np.float32(np.cos(self.tilt))
        return a, -sin - b * cos, cos - b * sin
