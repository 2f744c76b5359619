"""MOTChallenge (motchallenge.net): MOT15 to MOT20, and HT21, whose boxes are heads.

    train/MOT20-01/img1/000001.jpg   train/MOT20-01/gt/gt.txt     test/...

A line per box: ``frame,id,x,y,w,h,considered,class,visibility``. Counted are boxes that are considered, of class 1
(pedestrian) where there is a class: the middle of the top edge, of HT21's heads the centre. Sequences without gt
are unlabelled.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from .base import Entry, Layout, files, has, pictures
from .tree import Labelled, Shape, from_shapes, peek_lines, split_folders
from .visdrone import numbers


def _sequences(root: Path) -> list[tuple[str, Path]]:
    found = [(split, folder) for split, parent in split_folders(root) for folder in [parent, *files(parent)]]
    return [(split, folder) for split, folder in found if has(folder, "img1")]


def _rows(root: Path) -> Iterator[Labelled]:
    for split, folder in _sequences(root):
        path = folder / "gt" / "gt.txt"
        if not path.exists():
            continue
        columns = 8 if all(line.rstrip(",").count(",") >= 7 for line in peek_lines(path)) else 7
        boxes = numbers(path, columns)
        kept = boxes[boxes[:, 6] != 0]
        heads = folder.name.startswith("HT")
        if columns == 8 and not heads and (kept[:, 7] > 0).any():  # MOT15 has a position of -1 there
            kept = kept[kept[:, 7] == 1]
        by_frame: dict[int, list[np.ndarray]] = {}
        for row in kept:
            by_frame.setdefault(int(row[0]), []).append(row[2:6])
        for image in pictures(folder / "img1"):
            mine = by_frame.get(int("0" + "".join(c for c in image.stem if c.isdecimal())), [])
            shapes = [Shape("head" if heads else "pedestrian", (x, y, x + w, y + h)) for x, y, w, h in mine]
            yield Labelled(split, f"{folder.name}/{image.name}", image, path, shapes)


def _entries(root: Path) -> Iterator[Entry]:
    yield from from_shapes(_rows(root))
    for _, folder in _sequences(root):
        if not has(folder, "gt/gt.txt"):
            for image in pictures(folder / "img1"):
                yield Entry("unlabelled", f"{folder.name}/{image.name}", image, None)


LAYOUT = Layout("mot", lambda root: bool(_sequences(root)), _entries)
