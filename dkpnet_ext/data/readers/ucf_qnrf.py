"""UCF-QNRF (Idrees et al., ECCV 2018).

    Train/img_0001.jpg     Train/img_0001_ann.mat     Test/...

``annPoints`` is [N, 2] (x, y). Followers re-arrange it: train/ and test/ in lower case, or images and ground_truth in
folders of their own below Train and Test.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from .base import Entry, Layout, files, has, pairs, read_mat
from .tree import split_folders

TRUTHS = ("ground_truth", "ground-truth", "gt", "annotations", "mats")


def split_and_truths(root: Path, pattern: str) -> Iterator[tuple[str, Path, Path]]:
    """(split, folder of images, folder of annotations) of the split folders that hold annotations like ``pattern``."""
    for split, folder in split_folders(root):
        if folder != root:
            images = folder / "images" if has(folder, "images") else folder
            for truths in (folder, *(folder / name for name in TRUTHS)):
                if any(files(truths, pattern)):
                    yield split, images, truths
                    break


def _entries(root: Path) -> Iterator[Entry]:
    for split, images, truths in split_and_truths(root, "*_ann.mat"):
        yield from pairs(split, images, truths, "*_ann.mat", partial(read_mat, key="annPoints"))


LAYOUT = Layout("ucf-qnrf", lambda root: any(split_and_truths(root, "*_ann.mat")), _entries)
