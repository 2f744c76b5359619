"""Pascal VOC boxes (host.robots.ox.ac.uk/pascal/VOC), as labelImg and Roboflow write them, and LabelMe's first form.

    JPEGImages/1.jpg   Annotations/1.xml   ImageSets/Main/train.txt     or  train/1.jpg  train/1.xml     or  1.jpg  1.xml
    Train/RGB/1.jpg    Train/Infrared/1R.jpg   Train/GT_/1R.xml   (or rgb, tir, labels)   Test/...      DroneRGBT, GAIIC 2024

``object`` elements with ``name`` and ``bndbox``, or the ``polygon`` or ``segm`` of labelme.csail.mit.edu, of which the surrounding
box is taken; a box gives its centre, a person's box the middle of its top edge, or the centre of its ``part`` called head (VOC's
person layout). DroneRGBT has a ``point`` (x, y) instead; its colour picture is counted. SCUT-HEAD calls the box of a head person:
there it is a head. Sources: datumaro (voc, labelme), HCIILAB/SCUT-HEAD-Dataset-Release; that its files say person, and DroneRGBT,
are from code that reads them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..images import BadFile
from .base import Entry, Layout, files, is_file, read_text, read_xml
from .tree import PEEKED, Labelled, Pictures, Shape, from_shapes, outlined, peek_lines, split_of, split_of_folders, walk

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

_DRONE_RGBT = ("gt_", "labels")
_SCUT_HEAD = re.compile(r"Part[AB]_\d{5}$")


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
    called = tree.findtext("filename", "").strip()
    for element in tree.iter("object"):
        if element.findtext("deleted", "0").strip() == "1" or len(element) == 0:
            continue  # HollywoodHeads writes an empty object where nobody is
        label = element.findtext("name", "").strip()
        if (polygon := element.find("polygon")) is not None and element.find("bndbox") is None:  # Roboflow writes both
            shapes.append(_around(label, polygon, path))
            continue
        corners: Sequence[Any]
        if (point := element.find("point")) is not None:
            corners = [point.findtext("x", ""), point.findtext("y", "")]
        elif (head := next((p for p in element.iter("part") if p.findtext("name") == "head"), None)) is not None:
            corners = _middle(_corners(head, "bndbox"), path)
        else:
            corners = _corners(element, "bndbox" if element.find("segm") is None else "segm/box")
        if label == "person" and _SCUT_HEAD.match(path.stem):
            label = "head"
        shapes.append(Shape(label, corners))
    return called, shapes


def _corners(element: Element, box: str) -> list[str]:
    return [element.findtext(f"{box}/{name}", "") for name in ("xmin", "ymin", "xmax", "ymax")]


def _middle(corners: list[str], path: Path) -> list[float]:
    try:
        x0, y0, x1, y1 = map(float, corners)
    except ValueError:
        raise BadFile(path, "a part 'head' without xmin, ymin, xmax and ymax") from None
    return [(x0 + x1) / 2, (y0 + y1) / 2]


def _around(label: str, polygon: Element, path: Path) -> Shape:
    try:
        return outlined(label, [(corner.findtext("x", ""), corner.findtext("y", "")) for corner in polygon.iter("pt")])
    except ValueError:
        raise BadFile(path, "a polygon without corners, or one without x and y") from None


def _image(path: Path, called: str, pictures: Pictures, split: str) -> Path:
    """The picture of a file's name, or the one that it names; of a thermal picture 1R the colour picture 1."""
    image, stem = pictures.find(path.stem, split, path.parent), path.stem
    if path.parent.name.lower() in _DRONE_RGBT and re.fullmatch(r"\d+R", stem):
        colour = pictures.find(stem[:-1], split)
        image = colour if is_file(colour) else image
    return image if is_file(image) else pictures.find(called or stem, split, path.parent)


def _rows(root: Path) -> Iterator[Labelled]:
    own = root / "JPEGImages"  # masks in other folders have the same names
    pictures, splits = Pictures(own if own.is_dir() else root), _splits(root)
    for path in _files(root):
        inside = split_of_folders(path.relative_to(root).parent)
        split = splits.get(path.stem) or inside or split_of(path.stem) or "train"
        try:
            called, shapes = _shapes(path)
            image = _image(path, called, pictures, split)
            yield Labelled(split, image.name, image, path, shapes)
        except BadFile as bad:
            yield Labelled(split, path.name, path, path, bad)


def _entries(root: Path) -> Iterator[Entry]:
    yield from from_shapes(_rows(root))


LAYOUT = Layout("voc", _recognise, _entries, upright_points=True, deep=True)
