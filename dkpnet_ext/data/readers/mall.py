"""Mall (Chen et al., BMVC 2012): 2000 frames of one camera.

    frames/seq_000001.jpg ...   mall_gt.mat   perspective_roi.mat

``frame`` is a cell of structs with ``loc`` [N, 2] (x, y), ``count`` their number; ``roi.mask`` is the region of interest.
Frames 1 to 800 are for training, the rest for the test, as the authors say. Sources: the set's page
(personal.ie.cuhk.edu.hk/~ccloy), code that reads its files.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..images import BadFile
from .base import Entry, Layout, fail, has, matlab_points, pictures, read_variable, require_count


def struct_field(value: Any, name: str, path: Path) -> Any:
    """``value.name``, where MATLAB or scipy wrapped the struct in cells. Raises `BadFile`."""
    while isinstance(value, list) and len(value) == 1:
        value = value[0]
    if not isinstance(value, dict) or name not in value:
        raise BadFile(path, f"a struct without '{name}'")
    return value[name]


def read_mask(path: Path, variable: str) -> np.ndarray:
    """``variable.mask`` [H, W] as booleans. Raises `BadFile`."""
    mask = struct_field(read_variable(path, variable), "mask", path)
    if not isinstance(mask, np.ndarray) or mask.ndim != 2 or mask.dtype.kind not in "biuf":
        raise BadFile(path, "its region of interest is no mask")
    return mask > 0


def _points(path: Path, value: Any, count: Any) -> np.ndarray:
    points = matlab_points(struct_field(value, "loc", path), path)
    require_count(count, points, path, "count")
    return points


def _entries(root: Path) -> Iterator[Entry]:
    truth, roi = root / "mall_gt.mat", root / "perspective_roi.mat"
    frames, counts = read_variable(truth, "frame"), np.asarray(read_variable(truth, "count")).ravel()
    region = partial(read_mask, roi, "roi") if roi.exists() else None
    images = pictures(root / "frames")
    for image in images:
        number = int("".join(c for c in image.stem if c.isdecimal()) or 0)
        split = "train" if number <= 800 else "test"
        if not isinstance(frames, list) or not 1 <= number <= min(len(frames), len(counts)):
            yield Entry(split, image.name, image, partial(fail, truth, f"no frame {number} in it"))
            continue
        yield Entry(split, image.name, image, partial(_points, truth, frames[number - 1], counts[number - 1]), region)


LAYOUT = Layout(
    "mall", lambda root: has(root, "mall_gt.mat") and has(root, "frames"), _entries, says="frames 1 to 800 are train"
)
