"""ShanghaiTech A and B (Zhang et al., CVPR 2016).

    train_data/images/IMG_1.jpg     train_data/ground_truth/GT_IMG_1.mat     test_data/...

``image_info`` is a cell that holds a struct: ``location`` [N, 2] (x, y) and ``number``. The common mirror calls the
folder ``ground-truth``. Own data in this form leave out ``GT_``, or are written by scipy (a struct without the cell,
with or without ``number``).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ..images import BadFile
from .base import Entry, Layout, files, has, matlab_points, pairs, read_variable, require_count


def read_image_info(path: Path) -> np.ndarray:
    """Points of a ``GT_IMG_1.mat``. Raises `BadFile`."""
    value = read_variable(path, "image_info")
    while isinstance(value, list) and len(value) == 1:
        value = value[0]
    if not isinstance(value, dict) or "location" not in value:
        raise BadFile(path, "image_info is not a struct with 'location', or a cell that holds one")
    points = matlab_points(value["location"], path)
    require_count(value.get("number"), points, path, "number")
    return points


def _entries(root: Path) -> Iterator[Entry]:
    for split in ("train", "test"):
        folder = root / f"{split}_data"
        truths = folder / ("ground-truth" if has(folder, "ground-truth") else "ground_truth")
        pattern = "GT_*.mat" if any(files(truths, "GT_*.mat")) or not any(files(truths, "*.mat")) else "*.mat"
        yield from pairs(split, folder / "images", truths, pattern, read_image_info)


LAYOUT = Layout("shanghaitech", lambda root: has(root, "train_data/images", "test_data/images"), _entries)
