"""CARPK and PUCPR+ (Hsieh et al., ICCV 2017): cars on parking lots, seen by a drone. Counted are cars.

    data/Images/x.png   data/Annotations/x.txt   data/ImageSets/train.txt   data/ImageSets/test.txt

A line per car: ``x0 y0 x1 y1 class``; its centre is counted. The format is from its publication and code that reads it; its own
description was not found.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ..images import BadFile
from .base import Entry, Layout, files, has, read_text
from .tree import Labelled, Pictures, Shape, from_shapes, split_of
from .visdrone import numbers


def _rows(root: Path) -> Iterator[Labelled]:
    pictures = Pictures(root / "Images")
    for listing in files(root / "ImageSets", "*.txt"):
        split = split_of(listing.stem)
        for name in read_text(listing).split() if split else ():
            path = root / "Annotations" / f"{name}.txt"
            try:
                shapes: list[Shape] | BadFile = [Shape("", box) for box in numbers(path, 4, None)]
            except BadFile as bad:
                shapes = bad
            image = pictures.find(name)
            yield Labelled(split or "train", image.name, image, path, shapes)


def _entries(root: Path) -> Iterator[Entry]:
    yield from from_shapes(_rows(root))


LAYOUT = Layout(
    "carpk", lambda root: all(has(root, folder) for folder in ("Images", "Annotations", "ImageSets")), _entries
)
