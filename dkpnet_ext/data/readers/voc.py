"""Pascal VOC boxes (host.robots.ox.ac.uk/pascal/VOC), as labelImg and Roboflow write them, and LabelMe's first form.

    JPEGImages/1.jpg   Annotations/1.xml   ImageSets/Main/train.txt     or  train/1.jpg  train/1.xml     or  1.jpg  1.xml

``object`` elements with ``name`` and ``bndbox``, or the ``polygon`` of labelme.csail.mit.edu, of which the surrounding
box is taken; a box gives its centre, a person's box the middle of its top edge.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..images import BadFile
from .base import Entry, Layout, files, is_file, read_text, read_xml
from .tree import PEEKED, Labelled, Pictures, Shape, from_shapes, peek_lines, split_of, split_of_file, walk

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element


def _files(root: Path) -> Iterator[Path]:
    return (path for path in walk(root) if path.suffix.lower() == ".xml")


def _recognise(root: Path) -> bool:
    first = (" ".join(peek_lines(path, 5)) for path, _ in zip(_files(root), range(PEEKED), strict=False))
    return root.is_dir() and any("<annotation" in text and "<annotations" not in text for text in first)


def _splits(root: Path) -> dict[str, str]:
    """Image -> split, where ImageSets lists them."""
    lists = [
        (split_of(path.stem), path) for path in files(root / "ImageSets" / "Main", "*.txt") if "_" not in path.stem
    ]
    return {name: split for split, path in lists if split for name in read_text(path).split()}


def _shapes(path: Path) -> tuple[str, list[Shape]]:
    tree = read_xml(path)
    shapes = []
    for element in tree.iter("object"):
        corners: list[Any] = [element.findtext(f"bndbox/{name}", "") for name in ("xmin", "ymin", "xmax", "ymax")]
        if (polygon := element.find("polygon")) is not None:
            if element.findtext("deleted", "0").strip() == "1":
                continue
            corners = _around(polygon, path)
        shapes.append(Shape(element.findtext("name", "").strip(), corners))
    return tree.findtext("filename", "").strip(), shapes


def _around(polygon: Element, path: Path) -> list[float]:
    """The box around a polygon; of a single corner the point."""
    try:
        xs, ys = ([float(corner.findtext(axis, "")) for corner in polygon.iter("pt")] for axis in "xy")
        return [xs[0], ys[0]] if len(xs) == 1 else [min(xs), min(ys), max(xs), max(ys)]
    except ValueError:
        raise BadFile(path, "a polygon without corners, or one without x and y") from None


def _rows(root: Path) -> Iterator[Labelled]:
    pictures, splits = Pictures(root), _splits(root)
    for path in _files(root):
        split = splits.get(path.stem) or split_of_file(path)
        try:
            image = pictures.find(path.stem, split)
            called, shapes = _shapes(path)
            image = image if is_file(image) else pictures.find(called or path.stem, split)
            yield Labelled(split, image.name, image, path, shapes)
        except BadFile as bad:
            yield Labelled(split, path.name, path, path, bad)


def _entries(root: Path) -> Iterator[Entry]:
    yield from from_shapes(_rows(root))


LAYOUT = Layout("voc", _recognise, _entries, upright_points=True, deep=True)
