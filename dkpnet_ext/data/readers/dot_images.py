"""Dot images: a second picture, black but for a dot at each head (VGG cells, TRANCOS, MBM and own tools).

    001cell.png   001dots.png   or  x.jpg  xdots.png (x_dots.png)   or  images/x.jpg  dots/x.png

in one folder, or in train/, val/ and test/.

A dot is a patch of connected pixels that are not black; its centre of mass is the head. TRANCOS' xmask.mat (``BW``) is the region
of interest. The forms are from the sets' publications and from code that reads TRANCOS.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from ..images import BadFile, open_image
from .base import Entry, Layout, as_points, read_variable
from .tree import relative, split_folders, walk_pictures

FOLDERS = ("dots", "dot", "dotmaps", "dot_maps")


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


def _read_roi(path: Path) -> np.ndarray:
    mask = read_variable(path, "BW")
    if not isinstance(mask, np.ndarray) or mask.ndim != 2:
        raise BadFile(path, "its BW is no mask")
    return mask > 0


def _pairs(folder: Path) -> Iterator[tuple[Path, Path]]:
    everything = walk_pictures(folder)
    dots = [path for path in everything if path.parent.name.lower() in FOLDERS]
    images: dict[str, list[Path]] = {}
    for path in everything:
        if path.parent.name.lower() not in FOLDERS:
            images.setdefault(path.stem.lower(), []).append(path)

    def near(stem: str, scene: Path) -> Path | None:
        """The picture of a scene's folder, or of one below it; the only one of its name anywhere."""
        named = images.get(stem, [])
        mine = [path for path in named if scene in (path.parent, path.parent.parent)]
        mine.sort(
            key=lambda path: path.parent.name.lower() not in ("images", "image", "imgs", "img")
        )  # not a density map
        return mine[0] if mine else named[0] if len(named) == 1 else None

    for path in dots:
        if (image := near(path.stem.lower(), path.parent.parent)) is not None:
            yield image, path
    for stem, paths in images.items():
        if found := re.fullmatch(r"(.+?)[_-]?dots?", stem):
            for path in paths:
                scenes = (path.parent, path.parent.parent)
                ends = (near(found[1] + end, scene) for end in ("", "cell", "_cell") for scene in scenes)
                if (image := next((one for one in ends if one is not None), None)) is not None:
                    yield image, path


def _recognise(root: Path) -> bool:
    return any(True for _, folder in split_folders(root) for _ in _pairs(folder))


def _entries(root: Path) -> Iterator[Entry]:
    for split, folder in split_folders(root):
        for image, dots in _pairs(folder):
            roi = image.with_name(f"{image.stem}mask.mat")
            region = partial(_read_roi, roi) if roi.exists() else None
            yield Entry(split, relative(image, folder), image, partial(read_dots, dots), region)


LAYOUT = Layout("dot-images", _recognise, _entries, deep=True)
