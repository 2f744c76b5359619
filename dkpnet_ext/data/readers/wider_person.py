"""WiderPerson (Zhang et al., 2019).

    Images/000040.jpg   Annotations/000040.jpg.txt   train.txt   val.txt

The number of boxes, then a line ``class x0 y0 x1 y1`` for each: 1 pedestrian, 2 rider, 3 partly visible person, of which the middle
of the top edge is counted; ignored regions (4) and groups (5) are areas. The lists name pictures without suffix; of test.txt's
no annotation is published. Source: the set's ReadMe.txt.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ..images import BadFile
from .base import Entry, Layout, files, has, pictures, read_text
from .tree import Labelled, Shape, from_shapes, split_of

_LABELS = {1: "person", 2: "person", 3: "person", 4: "ignored region", 5: "group"}


def _recognise(root: Path) -> bool:
    named = files(root / "Annotations", "*.txt") if has(root, "Annotations") and has(root, "Images") else []
    return any(Path(path.stem).suffix for path in named[:9])


def _shapes(path: Path) -> list[Shape]:
    """Raises `BadFile`."""
    shapes = []
    for number, line in enumerate(read_text(path).splitlines()[1:], 2):
        try:
            kind, *corners = (float(field) for field in line.split() or ["0"])
            if kind in _LABELS:
                x0, y0, x1, y1 = corners
                shapes.append(Shape(_LABELS[int(kind)], (x0, y0, x1, y1)))
        except ValueError:
            raise BadFile(path, f"line {number} is not 'class x0 y0 x1 y1'") from None
    return shapes


def _rows(root: Path) -> Iterator[Labelled]:
    lists = {path: split_of(path.stem) for path in files(root, "*.txt")}
    splits = {name: split for path, split in lists.items() if split for name in read_text(path).split()}
    for image in pictures(root / "Images"):
        path = root / "Annotations" / f"{image.name}.txt"
        if path.exists():  # of the test none is published
            try:
                shapes: list[Shape] | BadFile = _shapes(path)
            except BadFile as bad:
                shapes = bad
            yield Labelled(splits.get(image.stem, "train"), image.name, image, path, shapes)


def _entries(root: Path) -> Iterator[Entry]:
    yield from from_shapes(_rows(root))
    for image in pictures(root / "Images"):
        if not (root / "Annotations" / f"{image.name}.txt").exists():
            yield Entry("unlabelled", image.name, image, None)


LAYOUT = Layout("widerperson", _recognise, _entries, says="ignored regions and groups of people are no heads")
