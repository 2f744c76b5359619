"""Counts per region: polygons (GeoJSON) or a label mask over an image -> exact sums of its density map.

A region is a set of the image's pixels. A density cell's heads are shared among regions by the area of it that they
cover, so regions that partition the image have counts that add up to the image's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from scipy.sparse import csr_array
from torch import Tensor

from ..data.images import BadFile, open_image, require_file
from ..data.regions import rasterize
from ..errors import UserError

MAX_LABELS = 256  # a mask with more values than this is a photograph
_LOSSY = ("JPEG", "WEBP", "HEIF", "AVIF")
MAX_FILE = 64 << 20  # bytes of a file of polygons
MAX_COORDINATE = 1e9  # pixels; no picture is near

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
    try:
        require_file(path)
        return _read_polygons(path) if path.suffix.lower() in (".json", ".geojson") else _read_mask(path)
    except (BadFile, UserError) as error:
        raise UserError(f"regions {path}: {error}") from None


def _read_mask(path: Path) -> dict[str, np.ndarray]:
    try:
        with open_image(path) as image:
            if image.format in _LOSSY:
                raise UserError(f"a mask saved as {image.format} has other values than its labels: save it as PNG")
            return _labels(ImageOps.exif_transpose(image))
    except BadFile as error:
        raise UserError(f"neither GeoJSON (.json, .geojson) nor a mask: {error}") from None
    except UserError:
        raise
    except Exception as error:  # decoders raise many kinds
        raise UserError(f"a damaged mask ({' '.join(str(error).split())})") from None


def _read_polygons(path: Path) -> dict[str, list[Ring]]:
    if path.stat().st_size > MAX_FILE:
        raise UserError(f"more than {MAX_FILE >> 20} MiB of polygons")
    try:
        return _polygons(json.loads(path.read_text(encoding="utf-8-sig")))
    except RecursionError:
        raise UserError("brackets nested too deep") from None
    except (ValueError, OSError) as error:
        raise UserError(" ".join(str(error).split())) from None


def polygon(corners: Any) -> Ring:
    """Corners [[x, y], ...] of one ring, checked, float64 [n, 2].

    Raises:
        ValueError: not at least three points of two finite numbers, or one that is far from any picture.
    """
    try:
        pairs = [corner[:2] for corner in corners]
        if any(isinstance(value, bool | str) for pair in pairs for value in pair):
            raise TypeError
        ring = np.array([[*map(float, pair)] for pair in pairs], np.float64)
    except (TypeError, ValueError, OverflowError, IndexError, KeyError):
        raise ValueError("its coordinates are no list of [x, y] numbers") from None
    if ring.ndim != 2 or ring.shape[1] != 2 or len(ring) < 3 or not np.isfinite(ring).all():
        raise ValueError("a ring needs at least three finite [x, y] points")
    if np.abs(ring).max() > MAX_COORDINATE:
        raise ValueError(f"a coordinate is beyond {MAX_COORDINATE:g} pixels")
    return ring


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
            rings = [polygon(ring) for poly in polygons for ring in poly]
        except TypeError:
            raise ValueError(f"feature {number}: its coordinates are no lists of rings of [x, y] numbers") from None
        except ValueError as error:
            raise ValueError(f"feature {number}: {error}") from None
        if not rings:
            raise ValueError(f"feature {number}: a ring needs at least three finite [x, y] points")
        properties = feature.get("properties")
        name = str((properties.get("name") if isinstance(properties, dict) else None) or f"region {number}")
        if name in regions:
            raise ValueError(f"two regions are called {name!r}")
        regions[name] = rings
    return regions


def _labels(image: Image.Image) -> dict[str, np.ndarray]:
    if image.mode not in ("1", "L", "P", "I;16", "I;16B", "I") or (image.mode == "P" and _is_coloured(image)):
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


def _is_coloured(image: Image.Image) -> bool:
    """Whether a palette's colours are the labels, rather than its numbers: black, which is no region, is not the first."""
    used = np.unique(np.asarray(image))
    palette = (image.getpalette("RGB") or []) + [0] * 768  # a file may hold the first colours only
    colours = np.array(palette[:768]).reshape(-1, 3)[used]
    return bool(used[0] == 0 and colours[0].any() and not colours.any(1).all())


def _overlaps(targets: np.ndarray, sources: np.ndarray) -> csr_array:
    """Length of the intersection of each interval between ``targets`` [m + 1] with each between ``sources`` [n + 1],
    sparse [m, n]; both ascend over the same range."""
    points = np.union1d(targets, sources)
    middles = (points[:-1] + points[1:]) / 2
    rows, columns = (np.searchsorted(edges, middles) - 1 for edges in (targets, sources))
    return csr_array((np.diff(points), (rows, columns)), shape=(len(targets) - 1, len(sources) - 1))


def cell_shares(mask: np.ndarray, stride: int, counted: tuple[int, int] | None = None) -> np.ndarray:
    """Share of each density cell's area that a mask [H, W] covers, float64 [ceil(h / stride), ceil(w / stride)].

    A cell that reaches over the image's edge is measured by its part inside.

    Args:
        counted: (h, w) at which the image was counted, by default (H, W).
    """

    def edges(length: int, scale: float) -> np.ndarray:
        inner = np.arange(0, length, stride) * scale
        return np.append(inner, length * scale)

    height, width = mask.shape
    h, w = counted or mask.shape
    rows, columns = edges(h, height / h), edges(w, width / w)
    rows[-1], columns[-1] = height, width  # not rounded
    covered = _overlaps(rows, np.arange(height + 1.0)) @ mask.astype(np.float32)
    covered = (_overlaps(columns, np.arange(width + 1.0)) @ covered.T).T
    return covered / np.outer(np.diff(rows), np.diff(columns))


def region_shares(
    regions: Regions, size: tuple[int, int], stride: int, counted: tuple[int, int] | None = None
) -> dict[str, np.ndarray]:
    """`cell_shares` of each region, to be used for all images of one size.

    Args:
        regions: from `read_regions`, or made in Python; size: (H, W) of the image in pixels.
        counted: (h, w) at which it was counted, by default ``size``.

    Raises:
        UserError: a mask of another size than the image; a polygon that covers no pixel of it.
    """
    shares = {}
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
        shares[name] = cell_shares(mask, stride, counted)
    return shares


def count_regions(
    density: Tensor | np.ndarray,
    regions: Regions,
    size: tuple[int, int],
    stride: int,
    counted: tuple[int, int] | None = None,
) -> dict[str, float]:
    """Heads in each region of an image.

    Args:
        density: [ceil(h / stride), ceil(w / stride)] heads per cell; the others: see `region_shares`, which says what it
            raises, too.
    """
    heads = torch.as_tensor(density).double().cpu().numpy()
    return {name: float((heads * share).sum()) for name, share in region_shares(regions, size, stride, counted).items()}
