"""UCSD pedestrians (Chan et al., CVPR 2008): ten clips of 200 frames of one camera.

    vidf/vidf1_33_000.y/vidf1_33_000_f001.png ...     vidf-cvpr/vidf1_33_000_frame_full.mat
    vidf-cvpr/vidf1_33_roi_mainwalkway.mat            (in folders of any name)

``frame`` (or ``fgt.frame``) is a cell of structs with ``loc`` [N, 3] (x, y, ...); ``roi.mask`` is the region of interest.
Clips 3 to 6 (frames 601 to 1400) are for training, the rest for the test, as usual. Sources: svcl.ucsd.edu/projects/peoplecnt, code
that reads its files.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..images import BadFile
from .base import Entry, Layout, fail, matlab_points, pictures, read_variable
from .mall import read_mask, struct_field
from .tree import walk


def _frames(path: Path) -> list[Any]:
    try:
        value = read_variable(path, "frame")
    except BadFile:
        value = struct_field(read_variable(path, "fgt"), "frame", path)
    return value if isinstance(value, list) else []


def _points(path: Path, value: Any) -> np.ndarray:
    places = struct_field(value, "loc", path)
    return matlab_points(places[:, :2] if isinstance(places, np.ndarray) and places.ndim == 2 else places, path)


def _truths(root: Path) -> list[Path]:
    return [path for path in walk(root) if path.name.endswith("_frame_full.mat")] if root.is_dir() else []


def _entries(root: Path) -> Iterator[Entry]:
    everything = list(walk(root))
    roi = next(
        (path for path in everything if path.name.endswith("roi_mainwalkway.mat") and "count" not in path.name), None
    )
    region = partial(read_mask, roi, "roi") if roi else None
    folders = {path.parent.name.removesuffix(".y"): path.parent for path in everything if path.suffix == ".png"}
    for truth in _truths(root):
        clip = truth.name.removesuffix("_frame_full.mat")
        split = "train" if clip[-3:] in ("003", "004", "005", "006") else "test"
        frames, images = _frames(truth), pictures(folders[clip]) if clip in folders else []
        if len(frames) != len(images):
            reason = f"{len(frames)} frames in it, but {len(images)} pictures of {clip}"
            yield Entry(split, clip, truth, partial(fail, truth, reason))
            continue
        for image, frame in zip(images, frames, strict=True):
            yield Entry(split, image.name, image, partial(_points, truth, frame), region)


LAYOUT = Layout("ucsd", lambda root: bool(_truths(root)), _entries, says="clips 3 to 6 are train")
