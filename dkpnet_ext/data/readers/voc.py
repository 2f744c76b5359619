"""Pascal VOC boxes (host.robots.ox.ac.uk/pascal/VOC), as labelImg and Roboflow write them.

    JPEGImages/1.jpg   Annotations/1.xml   ImageSets/Main/train.txt     or  train/1.jpg  train/1.xml     or  1.jpg  1.xml

``object`` elements with ``name`` and ``bndbox``; a box gives its centre, a person's box the middle of its top edge.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ..images import BadFile
from .base import Entry, Layout, files, is_file, read_text, read_xml
from .tree import PEEKED, Labelled, Pictures, Shape, from_shapes, peek_lines, split_of, split_of_file, walk


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
        corners = [element.findtext(f"bndbox/{name}", "") for name in ("xmin", "ymin", "xmax", "ymax")]
        shapes.append(Shape(element.findtext("name", ""), corners))
    return tree.findtext("filename", ""), shapes


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
