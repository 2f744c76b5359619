"""A mark on a picture, as JSON of many tools has it, and the `Shape` that it is; shared by the layouts json-pictures and
json-each.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .tree import Shape

LABELS = ("label", "category", "name", "className", "class", "title", "identity")
MARKS = (
    *("objects", "labels", "annotations", "instances", "heads", "dots", "points", "locations", "boxes", "bbox"),
    *("rects", "children"),
)


def shape_of(mark: Any, label: str = "") -> Shape | None:
    """The shape of one mark; None of one that is no place, such as a tag.

    A pair [x, y] is a point, four numbers are x, y, width, height. Of an object these are looked for, in this order:
    ``point``, ``keypoint``, ``box2d`` {x1, y1, x2, y2}, ``coordinates`` {x, y, width, height} around a centre, ``bounding_box``
    {left, top, width, height} or {x, y, w, h}, ``bbox`` [x, y, width, height], ``points`` {x1, y1, x2, y2}, two corners, x and y.

    Raises:
        KeyError, TypeError, ValueError: of another form.
    """
    if not isinstance(mark, dict):
        if isinstance(mark, str):
            raise TypeError("a word marks no place")
        x, y, *size = mark
        return Shape(label, (x, y, x + size[0], y + size[1]) if len(size) == 2 else tuple(mark))
    label = next((str(mark[key]) for key in LABELS if isinstance(mark.get(key), str | int)), label)
    if isinstance(point := mark.get("point") or mark.get("keypoint"), dict):
        return Shape(label, (point["x"], point["y"]))
    corners = mark.get("box2d") or mark.get("points")
    if isinstance(corners, dict) and "x1" in corners:
        return Shape(label, [corners[key] for key in ("x1", "y1", "x2", "y2")])
    if isinstance(centre := mark.get("coordinates"), dict):
        half = centre["width"] / 2, centre["height"] / 2
        (x, y), (w, h) = (centre["x"], centre["y"]), half
        return Shape(label, (x - w, y - h, x + w, y + h))
    if isinstance(box := mark.get("bounding_box"), dict):
        keys = ("left", "top", "width", "height") if "left" in box else ("x", "y", "w", "h")
        return shape_of([box[key] for key in keys], label)
    if isinstance(box := mark.get("bbox", mark.get("bounding_box")), list):
        return shape_of(box, label)
    for keys in (("x0", "y0", "x1", "y1"), ("x1", "y1", "x2", "y2")):  # EuroCity Persons; TensorBox
        if set(keys) <= mark.keys():
            return Shape(label, [mark[key] for key in keys])
    return Shape(label, (mark["x"], mark["y"])) if {"x", "y"} <= mark.keys() else None


def shapes_of(marks: Any, label: str = "") -> list[Shape]:
    """Of a list of marks, or of an object that holds lists of them: ``{"bbox": [...]}``, ``{"head": [{x, y}, ...]}``."""
    if isinstance(marks, dict):
        held = next((marks[key] for key in MARKS if isinstance(marks.get(key), list)), None)
        if held is None:  # labels with their marks
            return [
                shape for name, own in marks.items() if isinstance(own, list) for shape in shapes_of(own, str(name))
            ]
        marks = held
    if not isinstance(marks, Iterable) or isinstance(marks, str):
        raise TypeError("marks are no list")
    return [shape for mark in marks if (shape := shape_of(mark, label)) is not None]
