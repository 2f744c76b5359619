"""RGBT-CC (Liu et al., CVPR 2021): pairs of colour and thermal images.

    train/1001_RGB.jpg   train/1001_T.jpg   train/1001_GT.json     val/...   test/...

The JSON has ``points`` [x, y] (and ``count``). The colour image is counted; the thermal one is left out. Source: the preprocessing
of EAEFNet and MIANet in SKKUAutoLab/ETSS-05-Congestion.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from ..images import BadFile
from .base import Entry, Layout, as_points, pictures, read_json, require_count
from .tree import split_folders


def _read(path: Path) -> np.ndarray:
    content = read_json(path)
    if not isinstance(content, dict) or "points" not in content:
        raise BadFile(path, "no 'points' in it")
    points = as_points(content["points"], path)
    require_count(content.get("count"), points, path, "count")
    return points


def _entries(root: Path) -> Iterator[Entry]:
    for split, folder in split_folders(root):
        for image in pictures(folder, "*_RGB.*"):
            truth = image.with_name(image.stem.removesuffix("_RGB") + "_GT.json")
            yield Entry(split, image.name, image, partial(_read, truth))


def _recognise(root: Path) -> bool:
    return any(pictures(folder, "*_RGB.*") and any(folder.glob("*_GT.json")) for _, folder in split_folders(root))


LAYOUT = Layout("rgbt-cc", _recognise, _entries)
