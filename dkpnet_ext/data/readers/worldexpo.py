"""WorldExpo'10 (Zhang et al., CVPR 2015).

    train_frame/200608_C08-02-01.jpg   train_label/200608/200608_C08-02-01.mat   train_label/200608/roi.mat   test_...

``point_position`` is [N, 2] (x, y), ``point_num`` their number. The region of interest of a scene is the polygon of
``maskVerticesXCoordinates`` and ``...Y...``: heads outside are not counted. Source: gjy3035/C-3-Framework (prepare script of WE),
which leaves pictures of nobody out; here they count 0.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from ..images import BadFile
from .base import Entry, Layout, fail, has, read_mat, read_variable
from .tree import walk, walk_pictures


def read_polygon(path: Path) -> np.ndarray:
    """The vertices [K, 2] of a ``roi.mat``. Raises `BadFile`."""
    x, y = (np.asarray(read_variable(path, f"maskVertices{axis}Coordinates"), float).ravel() for axis in "XY")
    if len(x) != len(y) or len(x) < 3 or not np.isfinite([x, y]).all():
        raise BadFile(path, "its region of interest is no polygon")
    return np.stack([x, y], axis=1)


def _entries(root: Path) -> Iterator[Entry]:
    for split in ("train", "test"):
        labels = root / f"{split}_label"
        truths = {path.stem: path for path in walk(labels) if path.suffix == ".mat" and path.name != "roi.mat"}
        for image in walk_pictures(root / f"{split}_frame"):
            if (truth := truths.pop(image.stem, None)) is None:
                yield Entry(split, image.name, image, partial(fail, image, f"no annotation of it in {labels}"))
                continue
            roi = truth.with_name("roi.mat")
            region = partial(read_polygon, roi) if roi.exists() else None
            yield Entry(split, image.name, image, partial(read_mat, truth, key="point_position"), region)
        for truth in truths.values():
            yield Entry(split, truth.name, truth, partial(fail, truth, "an annotation without its image"))


def _recognise(root: Path) -> bool:
    return any(has(root, f"{split}_frame") and has(root, f"{split}_label") for split in ("train", "test"))


LAYOUT = Layout("worldexpo", _recognise, _entries)
