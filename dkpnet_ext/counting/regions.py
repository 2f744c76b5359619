"""Counts per region: polygons (GeoJSON) or a label mask over an image -> exact sums of its density map.

A region is a set of pixels. A density cell's heads are shared among regions by the number of its pixels that they
cover, so regions that partition the image have counts that add up to the image's.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..errors import UserError

MAX_LABELS = 256  # a mask with more values than this is a photograph

Ring = np.ndarray  # [n, 2] float64 (x, y) in pixels
Regions = Mapping[str, "Sequence[Ring] | np.ndarray"]  # name -> rings of a polygon, or a boolean mask [H, W]


def read_regions(path: Path) -> Regions:
    """Read named regions in pixels of the upright image (x to the right, y down).

    Args:
        path: GeoJSON with Polygon or MultiPolygon features (holes are left out; a property `name` names the region),
            or a picture whose pixel values label the regions (black: none).

    Raises:
        UserError: neither, or broken.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"regions {path}: no such file")
    if path.suffix.lower() in (".json", ".geojson"):
        try:
            return _polygons(json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, OSError, RecursionError) as error:
            raise UserError(f"regions {path}: {' '.join(str(error).split())}") from None
    try:
        with Image.open(path) as image:
            return _labels(image)
    except UserError as error:
        raise UserError(f"regions {path}: {error}") from None
    except Exception as error:  # decoders raise many kinds
        raise UserError(f"regions {path}: neither GeoJSON (.json, .geojson) nor a readable mask ({error})") from None


def _polygons(document: Any) -> dict[str, list[Ring]]:
    collection = isinstance(document, dict) and document.get("type") == "FeatureCollection"
    features = document.get("features") if collection else [document]
    if not isinstance(document, dict) or "type" not in document or not isinstance(features, list) or not features:
        raise ValueError("no GeoJSON FeatureCollection, Feature or Polygon with at least one region")
    regions: dict[str, list[Ring]] = {}
    for number, feature in enumerate(features, 1):
        if not isinstance(feature, dict):
            raise ValueError(f"feature {number} is no object")
        geometry = feature.get("geometry") if feature.get("type") == "Feature" else feature
        kind = geometry.get("type") if isinstance(geometry, dict) else None
        if not isinstance(geometry, dict) or kind not in ("Polygon", "MultiPolygon"):
            raise ValueError(f"feature {number} is a {kind}; Polygon and MultiPolygon are regions")
        polygons: Any = [geometry.get("coordinates")] if kind == "Polygon" else geometry.get("coordinates")
        try:
            rings = [np.array([[*map(float, p[:2])] for p in ring], np.float64) for poly in polygons for ring in poly]
        except (TypeError, ValueError):
            raise ValueError(f"feature {number}: its coordinates are no lists of [x, y] numbers") from None
        if not rings or any(r.ndim != 2 or r.shape[1] != 2 or len(r) < 3 or not np.isfinite(r).all() for r in rings):
            raise ValueError(f"feature {number}: a ring needs at least three finite [x, y] points")
        properties = feature.get("properties")
        name = str((properties.get("name") if isinstance(properties, dict) else None) or f"region {number}")
        if name in regions:
            raise ValueError(f"two regions are called {name!r}")
        regions[name] = rings
    return regions


def _labels(image: Image.Image) -> dict[str, np.ndarray]:
    if image.mode not in ("1", "L", "P", "I;16", "I;16B", "I"):
        image = image.convert("RGB")
    values = np.asarray(image)
    if values.ndim == 3:
        values = (values.astype(np.int64) * (65536, 256, 1)).sum(2)
    labels = [int(v) for v in np.unique(values) if v != 0]
    if not labels:
        raise UserError("the mask is all black; label each region with a value above 0")
    if len(labels) > MAX_LABELS:
        raise UserError(f"{len(labels)} different values; a mask has at most {MAX_LABELS} (is it a photograph?)")
    spell = (lambda v: f"#{v:06x}") if image.mode == "RGB" else str
    return {spell(label): values == label for label in labels}


def rasterize(rings: Sequence[Ring], size: tuple[int, int]) -> np.ndarray:
    """Pixels [H, W] whose centre is inside (even-odd rule, so holes are outside).

    Crossings are half-open and computed alike for either direction of an edge: polygons that share edges share no
    pixel and leave none out.
    """
    height, width = size
    flips = np.zeros((height, width + 1), np.uint8)
    for ring in rings:
        for a, b in zip(ring, np.roll(ring, -1, axis=0), strict=True):
            (x0, y0), (x1, y1) = sorted((tuple(a), tuple(b)), key=lambda p: (p[1], p[0]))
            # Rows whose centre row + 0.5 lies in [y0, y1).
            rows = np.arange(max(math.ceil(y0 - 0.5), 0), min(math.ceil(y1 - 0.5), height))
            if rows.size:
                crossing = x0 + (rows + 0.5 - y0) * ((x1 - x0) / (y1 - y0))
                flips[rows, np.ceil(crossing - 0.5).clip(0, width).astype(np.int64)] ^= 1
    return np.bitwise_xor.accumulate(flips, axis=1)[:, :width].astype(bool)


def cell_shares(mask: np.ndarray, stride: int) -> np.ndarray:
    """Share of each density cell's pixels that a mask [H, W] covers, float64 [ceil(H / stride), ceil(W / stride)].

    A cell that reaches over the image's edge is measured by its pixels inside.
    """
    height, width = mask.shape

    def per_cell(length: int) -> np.ndarray:
        return np.minimum(np.arange(0, length, stride) + stride, length) - np.arange(0, length, stride)

    rows = np.add.reduceat(mask, np.arange(0, height, stride), axis=0, dtype=np.int64)
    cells = np.add.reduceat(rows, np.arange(0, width, stride), axis=1)
    return cells / np.outer(per_cell(height), per_cell(width))


def count_regions(
    density: Tensor | np.ndarray, regions: Regions, size: tuple[int, int], stride: int
) -> dict[str, float]:
    """Heads in each region.

    Args:
        density: [ceil(H / stride), ceil(W / stride)] heads per cell; size: (H, W) of the image in pixels.
        regions: from `read_regions`, or made in Python.

    Raises:
        UserError: a mask of another size than the image; a polygon that covers no pixel of it.
    """
    density = torch.as_tensor(density).double().cpu().numpy()
    counts = {}
    for name, region in regions.items():
        if isinstance(region, np.ndarray):
            if region.shape != tuple(size):
                raise UserError(
                    f"the mask of regions has {region.shape[1]}x{region.shape[0]} px, the image {size[1]}x{size[0]}"
                )
            mask = region
        else:
            mask = rasterize(region, size)
            if not mask.any():
                raise UserError(
                    f"region {name!r} covers no pixel of the {size[1]}x{size[0]} image; coordinates are pixels, y down"
                )
        counts[name] = float((density * cell_shares(mask, stride)).sum())
    return counts
