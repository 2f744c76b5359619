"""VisDrone (Zhu et al., PAMI 2021): detection images, and the crowd counting sequences of 2020 (DroneCrowd).

    VisDrone2019-DET-train/images/x.jpg   .../annotations/x.txt     x,y,w,h,score,category,truncation,occlusion
    sequences/00001/00001.jpg   annotations/00001.txt   trainlist.txt   testlist.txt     frame,x,y

Of the detection images, boxes of categories 1 (pedestrian) and 2 (people) with score 1 are counted: their centres,
as seen from above. Category 0 is an ignored region, in which nobody is annotated: it is left out, with who stands in it. Sources:
VisDrone/VisDrone2018-DET-toolkit's fields as converters quote them; of the sequences, code that reads them (header-less CSV).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ..images import BadFile
from .base import Entry, Layout, files, has, pictures, read_text
from .tree import Labelled, Shape, from_shapes, peek_lines, split_folders, split_of


def numbers(path: Path, least: int, separator: str | None = ",") -> np.ndarray:
    """A text file of numbers, at least ``least`` a line: float64 [lines, least]. Raises `BadFile`."""
    rows = []
    for number, line in enumerate(read_text(path).splitlines(), 1):
        fields = [field for field in line.strip().split(separator) if field.strip()]
        if fields:
            try:
                rows.append([float(field) for field in fields[:least]])
                if len(fields) < least:
                    raise ValueError
            except ValueError:
                raise BadFile(path, f"line {number} is not {least} numbers or more") from None
    return np.array(rows).reshape(-1, least)


def _folders(root: Path) -> list[tuple[str, Path]]:
    """(split, folder) of the detection sets."""
    return [
        (split, folder) for split, folder in split_folders(root) if has(folder, "images") and has(folder, "annotations")
    ]


def _recognise(root: Path) -> bool:
    if root.is_dir() and has(root, "sequences") and has(root, "annotations"):
        return any(
            len(line.split(",")) == 3 for path in files(root / "annotations")[:1] for line in peek_lines(path, 1)
        )
    firsts = [
        peek_lines(path, 1) for _, folder in _folders(root) for path in files(folder / "annotations", "*.txt")[:9]
    ]
    return any(line.rstrip(",").count(",") == 7 for lines in firsts for line in lines)


def _detection(root: Path) -> Iterator[Labelled]:
    for split, folder in _folders(root):
        for image in pictures(folder / "images"):
            path = folder / "annotations" / f"{image.stem}.txt"
            try:
                boxes = numbers(path, 6)
                kept = boxes[np.isin(boxes[:, 5], (1, 2)) & (boxes[:, 4] > 0)]
                found = [("", box) for box in kept] + [("ignored region", box) for box in boxes[boxes[:, 5] == 0]]
                shapes: list[Shape] | BadFile = [
                    Shape(label, (x, y, x + w, y + h)) for label, (x, y, w, h, *_) in found
                ]
            except BadFile as bad:
                shapes = bad
            yield Labelled(split, image.name, image, path, shapes)


def _sequences(root: Path) -> Iterator[Labelled]:
    lists = {path: split_of(path.stem) for path in files(root, "*list.txt")}
    splits = {line.strip(): split for path, split in lists.items() if split for line in read_text(path).splitlines()}
    for folder in files(root / "sequences"):
        path = root / "annotations" / f"{folder.name}.txt"
        split = splits.get(folder.name, "train")
        if path.exists():
            points = numbers(path, 3)
            for image in pictures(folder):
                mine = points[points[:, 0] == int("0" + "".join(c for c in image.stem if c.isdecimal()))]
                yield Labelled(split, f"{folder.name}/{image.name}", image, path, [Shape("", p) for p in mine[:, 1:]])


def _entries(root: Path) -> Iterator[Entry]:
    yield from from_shapes(_sequences(root) if has(root, "sequences") else _detection(root))


LAYOUT = Layout("visdrone", _recognise, _entries)
