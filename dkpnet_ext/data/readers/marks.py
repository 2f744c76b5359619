"""A mark on a picture, as JSON of many tools has it, and the `Shape` that it is; shared by the layouts json-pictures and
json-each.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from .tree import Shape, outlined

LABELS = ("label", "category", "name", "className", "class", "title", "identity")
_GROUPS = ("iscrowd", "is_crowd", "ignore", "crowd", "isgroupof", "is_group_of")  # in small letters
_YES = ("1", "true", "yes", "on")
_NAMES = ("categories", "category", "labels", "label", "class")
MARKS = (
    *("objects", "labels", "annotations", "instances", "heads", "dots", "points", "locations", "boxes", "bbox"),
    *("rects", "children"),
)


# What holds corners [x, y], {x, y}, or x, y, x, y ... (SuperAnnotate's polygon, Labelbox's, Scale's; Darwin's ``paths``).
_POLYGONS = ("polygon", "points", "vertices", "coordinates")
_CORNERS = (
    ("x0", "y0", "x1", "y1"),
    ("x1", "y1", "x2", "y2"),
    ("xmin", "ymin", "xmax", "ymax"),
    ("x", "y", "x2", "y2"),
)
_SIZED = (("left", "top", "width", "height"), ("x", "y", "width", "height"), ("x", "y", "w", "h"))


def is_group(told: Mapping[str, Any]) -> bool:
    """Whether a field or attribute of a mark says that it is a group, or to be ignored. CVAT writes true and false as words."""
    said = (value for key, value in told.items() if key.lower() in _GROUPS)
    return any(value.strip().lower() in _YES if isinstance(value, str) else bool(value) for value in said)


def shape_of(mark: Any, label: str = "") -> Shape | None:
    """The shape of one mark; None of a tag; without corners if it is of another form. What is marked ``iscrowd``, ``ignore``,
    ``IsGroupOf`` or, among its attributes, ``crowd`` is an area.

    A pair [x, y] is a point, four numbers are x, y, width, height. Of an object these are looked for, in this order:
    ``point``, ``keypoint``, ``coordinates`` {x, y} or {x, y, width, height} around a centre, ``bounding_box`` or
    ``boundingBox`` {left, top, width, height} or {x, y, w, h}, ``bbox`` [x, y, width, height], ``box2d`` or ``points`` {x1, y1,
    x2, y2} (and x3 ...), two corners, a corner and a size, a polygon, x and y.

    Raises:
        KeyError, TypeError, ValueError: of another form.
    """
    if not isinstance(mark, dict):
        if isinstance(mark, str):
            raise TypeError("a word marks no place")
        x, y, *size = mark
        return Shape(label, (x, y, x + size[0], y + size[1]) if len(size) == 2 else tuple(mark))
    if mark.get("deleted"):  # of LabelMe's first form and Cityscapes
        return None
    own = mark.get("attributes")
    if is_group(mark | own if isinstance(own, dict) else mark):
        rest = {key: value for key, value in mark.items() if key.lower() not in (*_GROUPS, "attributes")}
        shape = shape_of(rest, label)
        return shape and shape._replace(group=True)
    label = next((str(mark[key]) for key in LABELS if isinstance(mark.get(key), str | int)), label)
    if isinstance(point := mark.get("point") or mark.get("keypoint"), dict):
        return Shape(label, (point["x"], point["y"]))
    centre = mark.get("coordinates")
    if isinstance(centre, dict) and {"x", "y"} == centre.keys() - {"z"}:  # a point of Dataloop
        return Shape(label, (centre["x"], centre["y"]))
    if isinstance(centre, dict) and centre:
        half = centre["width"] / 2, centre["height"] / 2
        (x, y), (w, h) = (centre["x"], centre["y"]), half
        return Shape(label, (x - w, y - h, x + w, y + h))
    box = mark.get("bounding_box") or mark.get("boundingBox") or mark.get("bbox")
    if isinstance(box, dict):
        keys = next((keys for keys in _SIZED if keys[0] in box and keys[2] in box), _SIZED[0])
        return shape_of([box[key] for key in keys], label)
    if isinstance(box, list):
        return shape_of(box, label)
    return _by_corners(mark, label)


def _by_corners(mark: dict[str, Any], label: str) -> Shape | None:
    """A mark whose corners are named, or which is a polygon."""
    corners = mark.get("box2d") or mark.get("points")
    if isinstance(corners, dict) and "x1" in corners:
        numbers = [number for number in range(1, 9) if f"x{number}" in corners]
        return outlined(label, [(corners[f"x{number}"], corners[f"y{number}"]) for number in numbers])
    for keys in _CORNERS:
        if set(keys) <= mark.keys():
            return Shape(label, [mark[key] for key in keys])
    for keys in _SIZED:
        if set(keys) <= mark.keys():
            return shape_of([mark[key] for key in keys], label)
    if found := next((mark[key] for key in _POLYGONS if mark.get(key) and mark.get("type") != "template"), None):
        return outlined(label, _ring(found))
    if {"x", "y"} <= mark.keys():
        return Shape(label, (mark["x"], mark["y"]))
    return None if "tag" in mark or mark.get("type") in ("tag", "comment", "class") else Shape(label, ())


def _ring(found: Any) -> list[Any]:
    """Corners (x, y) of a polygon's field. Raises KeyError, TypeError, ValueError."""
    if isinstance(found, dict):  # of Darwin; Encord numbers them
        paths = found.get("paths") or ([found["path"]] if "path" in found else [[*found.values()]])
        found = [corner for path in paths for corner in path]
    if isinstance(found[0], list) and isinstance(found[0][0], dict):  # Dataloop's polygon, which may have holes
        found = found[0]
    if isinstance(found[0], int | float):
        found = list(zip(found[::2], found[1::2], strict=True))
    return [(corner["x"], corner["y"]) if isinstance(corner, dict) else corner for corner in found]


def shapes_of(marks: Any, label: str = "") -> list[Shape]:
    """Of a list of marks, or of an object that holds lists of them: ``{"bbox": [...]}``, ``{"head": [{x, y}, ...]}``."""
    if isinstance(marks, dict):
        lists = [marks[key] for key in MARKS if isinstance(marks.get(key), list)]
        held = next((own for own in lists if not any(isinstance(mark, str | int) for mark in own)), None)
        names: list[Any] = next((marks[key] for key in _NAMES if isinstance(marks.get(key), list)), [])
        if held is not None and len(names) == len(held):  # Hugging Face: a list of boxes, a list of their categories
            found = [shape_of(mark, str(name)) for mark, name in zip(held, names, strict=True)]
            return [shape for shape in found if shape is not None]
        if held is None:  # labels with their marks
            return [
                shape for name, own in marks.items() if isinstance(own, list) for shape in shapes_of(own, str(name))
            ]
        marks = held
    if not isinstance(marks, Iterable) or isinstance(marks, str):
        raise TypeError("marks are no list")
    return [shape for mark in marks if (shape := shape_of(mark, label)) is not None]
