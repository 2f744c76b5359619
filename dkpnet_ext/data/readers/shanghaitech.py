"""ShanghaiTech A and B (Zhang et al., CVPR 2016), and Venice (Liu et al., "Context-aware crowd counting", CVPR 2019).

    train_data/images/IMG_1.jpg     train_data/ground_truth/GT_IMG_1.mat     test_data/...
    train_data/images/4896_000060.jpg     train_data/ground-truth/4896_000060.mat     test_data/...     (Venice)

``image_info`` is a cell that holds a struct: ``location`` [N, 2] (x, y) and ``number``. The common mirror calls the
folder ``ground-truth``. Followers leave out ``GT_``, call the folders train, val and test, or write the file with
scipy (a struct without the cell, with or without ``number``). Venice's files hold ``annotation`` [N, 2] (x, y) and ``roi``
[H, W], the region of interest; sources: code that reads them, of two authors.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from ..images import BadFile
from .base import Entry, Layout, files, has, matlab_points, pairs, read_mat, read_variable, require_count
from .tree import PEEKED, split_folders

TRUTHS = ("ground_truth", "ground-truth")


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


def _folders(root: Path) -> list[tuple[str, Path, Path]]:
    """(split, images, annotations)."""
    found = [(split, folder) for split, folder in split_folders(root) if folder != root and has(folder, "images")]
    truths = [next((folder / name for name in TRUTHS if has(folder, name)), folder / TRUTHS[0]) for _, folder in found]
    return [(split, folder / "images", truth) for (split, folder), truth in zip(found, truths, strict=True)]


def _recognise(root: Path) -> bool:
    # FIDTM leaves UCF-QNRF there with maps only, which is no ShanghaiTech.
    folders = [truths for _, _, truths in _folders(root) if truths.is_dir()]
    names = [path.name for truths in folders for path in files(truths, "*.mat")]
    own = bool(names) or (bool(folders) and has(root, "train_data/images", "test_data/images"))
    return own and not any(name.endswith("_ann.mat") for name in names)


def read_roi(path: Path) -> np.ndarray:
    """The region of interest [H, W] of one of Venice's files, as booleans. Raises `BadFile`."""
    mask = read_variable(path, "roi")
    if not isinstance(mask, np.ndarray) or mask.ndim != 2:
        raise BadFile(path, "its roi is no mask")
    return mask > 0


def _is_venice(truths: list[Path]) -> bool:
    for path in truths[:PEEKED]:
        try:
            read_variable(path, "roi")
            return True
        except BadFile:
            continue
    return False


def _entries(root: Path) -> Iterator[Entry]:
    for split, images, truths in _folders(root):
        pattern = "GT_*.mat" if any(files(truths, "GT_*.mat")) or not any(files(truths, "*.mat")) else "*.mat"
        if pattern == "GT_*.mat" or not _is_venice(files(truths, pattern)):
            yield from pairs(split, images, truths, pattern, read_image_info)
            continue
        for entry in pairs(split, images, truths, pattern, partial(read_mat, key="annotation")):
            truth = truths / f"{entry.image.stem}.mat"
            copied = entry.image.stem.endswith(")") and not truth.exists()  # "4895_000060 (1).jpg" came with the set
            yield Entry("unlabelled", *entry[1:3], None) if copied else entry._replace(region=partial(read_roi, truth))


LAYOUT = Layout("shanghaitech", _recognise, _entries)
