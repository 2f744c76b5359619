"""Dot images: a second picture, black but for a dot at each head (VGG cells, TRANCOS, MBM and own tools).

    001cell.png   001dots.png      or  x.jpg  xdots.png  (x_dots.png)      (perhaps in train/, val/, test/)

A dot is a patch of connected pixels that are not black; its centre of mass is the head.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from ..images import BadFile, open_image
from .base import Entry, Layout, as_points
from .tree import relative, split_folders, walk_pictures


def read_dots(path: Path) -> np.ndarray:
    """Points of a dot image. Raises `BadFile`."""
    from scipy import ndimage

    with open_image(path) as image:
        try:
            if image.format == "JPEG":
                raise BadFile(path, "dots saved as JPEG, which smears them: save them as PNG")
            bright = np.asarray(image.convert("RGB")).max(axis=2) > 0
        except (OSError, ValueError, SyntaxError):
            raise BadFile(path, "cut off or corrupt: its pixels cannot be decoded") from None
    if bright.mean() > 0.25:
        raise BadFile(path, f"{100 * bright.mean():.0f} % of it is not black: no dots")
    labels, count = ndimage.label(bright, np.ones((3, 3)))
    centres = np.array(ndimage.center_of_mass(bright, labels, range(1, count + 1))).reshape(-1, 2)
    return as_points(centres[:, ::-1], path)


def _pairs(folder: Path) -> Iterator[tuple[Path, Path]]:
    images = {path.stem.lower(): path for path in walk_pictures(folder)}
    for stem, dots in images.items():
        if found := re.fullmatch(r"(.*?)[_-]?dots?", stem):
            base = found[1]
            image = images.get(base) or images.get(f"{base}cell") or images.get(f"{base}_cell")
            if image is not None:
                yield image, dots


def _recognise(root: Path) -> bool:
    return any(True for _, folder in split_folders(root) for _ in _pairs(folder))


def _entries(root: Path) -> Iterator[Entry]:
    for split, folder in split_folders(root):
        for image, dots in _pairs(folder):
            yield Entry(split, relative(image, folder), image, partial(read_dots, dots))


LAYOUT = Layout("dot-images", _recognise, _entries, deep=True)
