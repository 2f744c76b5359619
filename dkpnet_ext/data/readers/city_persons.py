"""CityPersons (Zhang et al., CVPR 2017), its annotation as MATLAB files.

    annotations/anno_train.mat   annotations/anno_val.mat   images (or leftImg8bit)/train/ulm/ulm_000000_000019_leftImg8bit.png

``anno_train_aligned`` is a cell of structs with ``im_name`` and ``bbs`` [N, 10]: a row is class x y width height instance and the
visible box. Of the classes pedestrians, riders, sitting and other persons are counted; ignored regions and groups are areas.
Pictures lie anywhere below; those in neither file (the test's) are unlabelled. The boxes as JSON are read by `json_each`. Sources:
cvgroup-njust/CityPersons (annotations/README.txt), code that reads the files.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..images import BadFile
from .base import MALFORMED, Entry, Layout, read_variable
from .tree import Labelled, Pictures, Shape, from_shapes, others

_CLASSES = ("ignore", "pedestrian", "rider", "sitting person", "person (other)", "person group")


def _files(root: Path) -> list[tuple[str, Path]]:
    found = [
        (split, root / folder / f"anno_{split}.mat") for split in ("train", "val") for folder in ("annotations", ".")
    ]
    return [(split, path) for split, path in found if path.is_file()]


def _shape(row: Any) -> Shape:
    kind, x, y, width, height = row[:5].tolist()
    return Shape(_CLASSES[int(kind)], (x, y, x + width, y + height))


def _rows(root: Path) -> Iterator[Labelled]:
    pictures = Pictures(root)
    for split, path in _files(root):
        for number, cell in enumerate(read_variable(path, f"anno_{split}_aligned"), 1):
            where = f"picture {number}"
            try:
                held = cell[0] if isinstance(cell, list) else cell
                shapes = list(map(_shape, held["bbs"].astype(float) if held["bbs"].size else ()))
                yield Labelled(split, held["im_name"], pictures.find(held["im_name"], split), path, shapes)
            except BadFile as bad:
                yield Labelled(split, where, path, path, bad)
            except MALFORMED:
                reason = BadFile(path, f"{where} is no struct with im_name and bbs [N, 10]")
                yield Labelled(split, where, path, path, reason)


def _entries(root: Path) -> Iterator[Entry]:
    rows = list(_rows(root))
    yield from from_shapes(rows)
    yield from others(root, rows)


LAYOUT = Layout("citypersons", lambda root: bool(_files(root)), _entries)
