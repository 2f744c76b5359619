"""Heads as points: found in a density map (`locate`), written as GeoJSON and CSV."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from ..files import write_atomically
from ..models.locating import locate, to_picture

__all__ = ["locate", "to_picture", "write_points"]


def write_points(points: np.ndarray, geojson: Path, table: Path) -> None:
    """Write points [N, 3] (x, y in pixels of the upright picture, y down; score) as GeoJSON and as CSV.

    The GeoJSON is a FeatureCollection of Points with a property ``score``, in the coordinates of region files.

    Raises:
        OutputError: a file that cannot be written.
    """
    rows = [(round(float(x), 2), round(float(y), 2), round(float(score), 4)) for x, y, score in points]
    features = [
        {"type": "Feature", "properties": {"score": score}, "geometry": {"type": "Point", "coordinates": [x, y]}}
        for x, y, score in rows
    ]
    write_atomically(geojson, json.dumps({"type": "FeatureCollection", "features": features}) + "\n")
    write_atomically(table, "\n".join(["x,y,score", *(f"{x},{y},{score}" for x, y, score in rows)]) + "\n")
