"""LabelMe (github.com/wkentaro/labelme), and X-AnyLabeling, whose rectangles have four corners.

    1.jpg     1.json     2.jpg     2.json     ...     (perhaps in train/, val/, test/)

A JSON for each picture, beside it or in a folder of its own: ``shapes`` with ``label``, ``shape_type`` and ``points``.
A point is a head, a rectangle or circle its centre, a polygon the centre of its extent. A picture without a JSON is
unlabelled. Source: strickvl/panlabel's sample, CVHub520/X-AnyLabeling's examples; the shape types are those of the tool.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..images import BadFile
from .base import Entry, Layout, is_file, read_json
from .tree import (
    PEEKED,
    Labelled,
    Pictures,
    Shape,
    from_shapes,
    outlined,
    peek_json,
    relative,
    split_folders,
    walk,
    walk_pictures,
)


def _is_labelme(content: Any) -> bool:
    return isinstance(content, dict) and isinstance(content.get("shapes"), list) and "imagePath" in content


def _recognise(root: Path) -> bool:
    found = (path for _, folder in split_folders(root) for path in walk(folder) if path.suffix.lower() == ".json")
    return any(_is_labelme(peek_json(path)) for path, _ in zip(found, range(PEEKED), strict=False))


def _shapes(path: Path) -> list[Shape]:
    content = read_json(path)
    if not _is_labelme(content):
        raise BadFile(path, "not a file of LabelMe: no 'shapes' and 'imagePath'")
    shapes = []
    for shape in content["shapes"]:
        try:
            points, kind = shape["points"], shape.get("shape_type", "point")
            label = str(shape.get("label", ""))
            # Of a circle: its centre and a point of its border.
            shapes.append(Shape(label, points[0]) if len(points) == 1 or kind == "circle" else outlined(label, points))
        except (KeyError, TypeError, ValueError, IndexError, AttributeError):
            raise BadFile(path, "a shape of it has no points") from None
    return shapes


def _image(path: Path, pictures: Pictures, split: str) -> Path:
    """The picture of a JSON: beside it by ``imagePath``, anywhere by that name, or by the JSON's own."""
    content = peek_json(path)
    called = content.get("imagePath") if isinstance(content, dict) else None
    for name in (called, path.stem):
        if isinstance(name, str) and name.strip():
            image = pictures.find(name, split, path.parent)
            if is_file(image):
                return image
    return path.with_suffix(".jpg")


def _rows(root: Path) -> Iterator[Labelled]:
    for split, folder in split_folders(root):
        pictures = Pictures(folder)
        for path in (path for path in walk(folder) if path.suffix.lower() == ".json"):
            image = path.with_suffix(".jpg")
            try:
                image = _image(path, pictures, split)
                shapes: list[Shape] | BadFile = _shapes(path)
            except BadFile as bad:
                shapes = bad
            yield Labelled(split, relative(image, folder), image, path, shapes)


def _entries(root: Path) -> Iterator[Entry]:
    labelled = list(_rows(root))
    yield from from_shapes(labelled)
    known = {row.image for row in labelled}
    for _, folder in split_folders(root):
        for image in walk_pictures(folder):
            if image not in known:
                yield Entry("unlabelled", relative(image, folder), image, None)


LAYOUT = Layout("labelme", _recognise, _entries, upright_points=True, deep=True)
