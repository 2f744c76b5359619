"""MOTChallenge (motchallenge.net): MOT15 to MOT20, and HT21, whose boxes are heads.

    train/MOT20-01/img1/000001.jpg   train/MOT20-01/gt/gt.txt     test/...

A line per box: ``frame,id,x,y,w,h,considered,class,visibility`` (MOT16 and later), or ``frame,id,x,y,w,h,considered`` and a place
in the world (MOT15). Counted are boxes that are considered (the challenge does not consider persons who stand or sit), of class 1
(pedestrian) where there is a class: the middle of the top edge; class 13 (crowd, MOT20) is an area. Of HT21 all classes but 3
(ignore: areas), the centre: heads of
pedestrians, of persons on vehicles, and static ones. gt/labels.txt, which CVAT and datumaro write, names the classes. Sequences
without gt are unlabelled. Frames and boxes begin at 1
there: pictures that begin at 0 are moved, boxes not. Sources: JonathonLuiten/TrackEval
(mot_challenge_2d_box, head_tracking_challenge), datumaro (mot).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from .base import Entry, Layout, files, has, pictures, read_text
from .tree import Labelled, Shape, from_shapes, peek_lines, split_folders
from .visdrone import numbers


def _sequences(root: Path) -> list[tuple[str, Path]]:
    found = [(split, folder) for split, parent in split_folders(root) for folder in [parent, *files(parent)]]
    return [(split, folder) for split, folder in found if has(folder, "img1")]


def _boxes(folder: Path) -> tuple[np.ndarray, list[str]]:
    """Of a sequence: boxes that are considered, and areas, [N, 8], and the labels of them. Raises `BadFile`."""
    path, names = folder / "gt" / "gt.txt", folder / "gt" / "labels.txt"
    classes = all(line.rstrip(",").count(",") in (7, 8) for line in peek_lines(path))  # MOT15 has 10 columns
    rows = numbers(path, 8 if classes else 7)
    kept, crowds = rows[rows[:, 6] != 0], rows[:0]
    if names.is_file() and classes:
        called = [line.strip() for line in read_text(names).splitlines()]
        return kept, [called[int(kind) - 1] if 0 < kind <= len(called) else f"class {kind:g}" for kind in kept[:, 7]]
    if folder.name.startswith("HT"):
        kept, crowds = (kept[kept[:, 7] != 3], rows[rows[:, 7] == 3]) if classes else (kept, crowds)
        return np.concatenate([kept, crowds]), ["head"] * len(kept) + ["crowd"] * len(crowds)
    if classes and (kept[:, 7] > 0).any():
        kept, crowds = kept[kept[:, 7] == 1], rows[rows[:, 7] == 13]
    return np.concatenate([kept, crowds]), ["pedestrian"] * len(kept) + ["crowd"] * len(crowds)


def _rows(root: Path) -> Iterator[Labelled]:
    for split, folder in _sequences(root):
        path = folder / "gt" / "gt.txt"
        if not path.exists():
            continue
        by_frame: dict[int, list[Shape]] = {}
        for row, label in zip(*_boxes(folder), strict=True):
            x, y, w, h = row[2:6]
            by_frame.setdefault(int(row[0]), []).append(Shape(label, (x, y, x + w, y + h)))
        images = [
            (image, int("0" + "".join(c for c in image.stem if c.isdecimal()))) for image in pictures(folder / "img1")
        ]
        first = int(0 in (number for _, number in images) and 0 not in by_frame)  # the challenge's frames begin at 1
        for image, number in images:
            shapes = by_frame.get(number + first, [])
            yield Labelled(split, f"{folder.name}/{image.name}", image, path, shapes)


def _entries(root: Path) -> Iterator[Entry]:
    yield from from_shapes(_rows(root))
    for _, folder in _sequences(root):
        if not has(folder, "gt/gt.txt"):
            for image in pictures(folder / "img1"):
                yield Entry("unlabelled", f"{folder.name}/{image.name}", image, None)


LAYOUT = Layout(
    "mot",
    lambda root: bool(_sequences(root)),
    _entries,
    says="boxes that the challenge considers, without static persons",
)
